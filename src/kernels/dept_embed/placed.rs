use candle_core::{Result, Tensor};

use super::{AdapterSlot, EmbeddingTable, Held, RowTable, dept_embed};
use crate::kernels::{Place, pool::ComputePool};

/// The adapters of a batch: their tensors, by slot, and where a GPU has its own copies, those in the same order.
#[derive(Debug, Default)]
pub struct Adapters<'a> {
    pub(super) slots: Vec<AdapterSlot<'a>>,
    /// None on the CPU.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "the CUDA op reads it"))]
    pub(super) held: Vec<Held>,
}

impl<'a> From<Vec<AdapterSlot<'a>>> for Adapters<'a> {
    /// Adapters in the host's memory.
    fn from(slots: Vec<AdapterSlot<'a>>) -> Self {
        Self { slots, held: Vec::new() }
    }
}

/// The embedding table where its model computes.
#[derive(Debug)]
pub struct PlacedTable(Table);

#[derive(Debug)]
enum Table {
    Host(EmbeddingTable),
    #[cfg(feature = "cuda")]
    Card(super::cuda::ResidentTable),
}

impl PlacedTable {
    /// Brings the table to `place`; a GPU gets it in 8 bits where it is, else in the place's own numbers.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn new(table: EmbeddingTable, place: &Place) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = place.device() {
            return super::cuda::ResidentTable::upload(device, &table, place.dtype())
                .map(Table::Card)
                .map(Self);
        }
        let _ = place;
        Ok(Self(Table::Host(table)))
    }

    /// The table in the host's memory.
    ///
    /// # Errors
    /// When it is on a GPU.
    pub fn host(&self) -> Result<&EmbeddingTable> {
        match &self.0 {
            Table::Host(table) => Ok(table),
            #[cfg(feature = "cuda")]
            Table::Card(_) => {
                candle_core::bail!("the embedding table is on a GPU; training computes on the CPU")
            }
        }
    }

    /// Embeds `rows` and returns `(rows, d)` in f32, where the table is.
    ///
    /// # Errors
    /// When any row points outside the table or its slot, or the device fails.
    pub fn embed(&self, adapters: &Adapters<'_>, rows: &RowTable, pool: &ComputePool) -> Result<Tensor> {
        match &self.0 {
            Table::Host(table) => dept_embed(table, &adapters.slots, rows, pool),
            #[cfg(feature = "cuda")]
            Table::Card(table) => super::cuda::embed(table, adapters, rows),
        }
    }
}
