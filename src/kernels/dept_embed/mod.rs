//! The input embeddings of a whole ragged batch, every sequence's adapter applied, in one call.
//!
//! Row by row this is DePT's input (Shi and Lipani, ICLR 2024, section 2.2): a *prompt row* is a row of P as it is, a
//! *token row* is `E[token] + scale * A[delta_row] . B`. ADePT's token row is `e + ReLU(e . A + a) . B + b` with
//! `e = E[token]`, wherever it stands. The rows of one batch belong to any number of adapters of
//! different m, s, r and scale; an adapter stays factored. The packed [`RowTable`] and the slot list are what a device
//! kernel takes too, so the CPU version and its CUDA twin are called alike.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};

use super::pool::ComputePool;

mod backward;
#[cfg(feature = "cuda")]
mod card_pool;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod placed;
#[cfg(any(test, feature = "cuda"))]
mod plan;
mod residents;
mod row_blocks;
mod rows;
#[cfg(any(test, feature = "cuda"))]
mod shelf;
#[cfg(any(test, feature = "cuda"))]
mod slab;
mod table;

pub mod reference;

pub use backward::{TrainedPair, TrainedSlot, dept_embed_tracked};
#[cfg(feature = "cuda")]
pub use cuda::Held;
pub use placed::{Adapters, PlacedTable};
pub use residents::{AdapterSource, Claim, Prefetch, ResidentAdapters, ResidentUse, Wanted};
pub use row_blocks::RowFormat;
pub use rows::{DeltaRow, Row, RowTable};
use table::TableShape;
pub use table::{EmbeddingTable, TableError};

/// An adapter in a GPU's memory: there is none without CUDA.
#[cfg(not(feature = "cuda"))]
#[derive(Debug)]
pub enum Held {}

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod tests;

/// Why a batch can't be embedded. Checked before any kernel reads memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeptEmbedError {
    /// A token id beyond the table.
    #[error("row {row} asks for token {token}: the embedding table has {vocab} rows")]
    Token {
        /// Row of the batch.
        row: usize,
        /// Token id.
        token: u32,
        /// Rows of the table.
        vocab: usize,
    },
    /// A slot that the batch does not list.
    #[error("row {row} asks for adapter slot {slot}: the batch has {slots}")]
    Slot {
        /// Row of the batch.
        row: usize,
        /// Slot number.
        slot: u32,
        /// Slots of the batch.
        slots: usize,
    },
    /// A prompt row beyond the slot's prompt.
    #[error("row {row} asks for prompt row {index} of slot {slot}: its prompt has {prompt_length}")]
    Prompt {
        /// Row of the batch.
        row: usize,
        /// Slot number.
        slot: u32,
        /// Row of P.
        index: u32,
        /// Rows that P has.
        prompt_length: usize,
    },
    /// A delta row beyond the slot's A, or a slot without an update.
    #[error("row {row} asks for delta row {index} of slot {slot}: its A has {max_length}")]
    Delta {
        /// Row of the batch.
        row: usize,
        /// Slot number.
        slot: u32,
        /// Row of A.
        index: u32,
        /// Rows that A has.
        max_length: usize,
    },
    /// Rows that the device's kernel does not take.
    #[error(
        "rows of {hidden} numbers: a CUDA device takes multiples of 4; serve this model with --device cpu"
    )]
    Hidden {
        /// Width of the table.
        hidden: usize,
    },
    /// A slot's matrices are not as wide as the table.
    #[error("slot {slot} holds rows of {found} numbers: the backbone's are {hidden}")]
    Width {
        /// Slot number.
        slot: usize,
        /// Width of the slot's matrices.
        found: usize,
        /// Width of the table.
        hidden: usize,
    },
}

/// The low-rank half of a slot: token row `i` may add `scale * a[i] . b`.
#[derive(Debug, Clone, Copy)]
pub struct LowRankSlot<'a> {
    /// A. `(s, r)`
    pub a: &'a [f32],
    /// B. `(r, d)`
    pub b: &'a [f32],
    /// The rank r.
    pub rank: usize,
    /// `lora_alpha / sqrt(r)`.
    pub scale: f32,
}

impl LowRankSlot<'_> {
    /// Rows of A, s.
    pub fn max_length(&self) -> usize {
        self.a.len() / self.rank
    }
}

/// ADePT's network: a token row `e` may add `ReLU(e . a + bias_a) . b + bias_b`.
#[derive(Debug, Clone, Copy)]
pub struct AdeptSlot<'a> {
    /// A. `(d, r)`
    pub a: &'a [f32],
    /// a. `(r)`
    pub bias_a: &'a [f32],
    /// B. `(r, d)`
    pub b: &'a [f32],
    /// b. `(d)`
    pub bias_b: &'a [f32],
}

/// What a slot adds to token rows.
#[derive(Debug, Clone, Copy)]
pub enum UpdateSlot<'a> {
    /// Nothing: prompt tuning.
    None,
    /// DePT's pair.
    LowRank(LowRankSlot<'a>),
    /// ADePT's network. It takes no notice of the delta row's index.
    Adept(AdeptSlot<'a>),
}

impl<'a> From<Option<LowRankSlot<'a>>> for UpdateSlot<'a> {
    fn from(pair: Option<LowRankSlot<'a>>) -> Self {
        pair.map_or(Self::None, Self::LowRank)
    }
}

impl UpdateSlot<'_> {
    /// Delta rows that tokens may ask for.
    fn rows(&self) -> usize {
        match self {
            Self::None => 0,
            Self::LowRank(pair) => pair.max_length(),
            Self::Adept(_) => usize::MAX,
        }
    }

    /// The width of its rows, where it is not `hidden`.
    fn misfit(&self, hidden: usize) -> Option<usize> {
        let (b, rank, other) = match self {
            Self::None => return None,
            Self::LowRank(pair) => (pair.b, pair.rank, None),
            Self::Adept(network) => {
                let rank = network.bias_a.len();
                let other = (network.a.len() != rank * hidden || network.bias_b.len() != hidden)
                    .then_some(network.bias_b.len());
                (network.b, rank, other)
            }
        };
        if b.len() == rank * hidden { other } else { Some(b.len() / rank.max(1)) }
    }
}

/// The tensors of one adapter as the kernel reads them.
#[derive(Debug, Clone, Copy)]
pub struct AdapterSlot<'a> {
    /// P. `(m, d)`
    pub prompt: &'a [f32],
    /// What token rows get added.
    pub update: UpdateSlot<'a>,
}

/// Embeds `rows` and returns `(rows, d)` on the CPU.
///
/// # Errors
/// When any row points outside the table or its slot.
pub fn dept_embed(
    table: &EmbeddingTable,
    slots: &[AdapterSlot<'_>],
    rows: &RowTable,
    pool: &ComputePool,
) -> Result<Tensor, candle_core::Error> {
    check(table.shape(), slots, rows).map_err(candle_core::Error::wrap)?;
    let packed = Tensor::from_slice(rows.packed(), (rows.len(), RowTable::WORDS), &Device::Cpu)?; // (rows, 3)
    packed.apply_op1_no_bwd(&DeptEmbed { table, slots, pool })
}

/// Checks every row against the table and its slot, so that the kernels may trust the batch.
fn check(
    TableShape { vocab, hidden }: TableShape,
    slots: &[AdapterSlot<'_>],
    rows: &RowTable,
) -> Result<(), DeptEmbedError> {
    for (slot, held) in slots.iter().enumerate() {
        if !held.prompt.len().is_multiple_of(hidden) {
            return Err(DeptEmbedError::Width { slot, found: held.prompt.len(), hidden });
        }
        if let Some(found) = held.update.misfit(hidden) {
            return Err(DeptEmbedError::Width { slot, found, hidden });
        }
    }
    let find = |row, slot: u32| {
        slots.get(slot as usize).ok_or(DeptEmbedError::Slot { row, slot, slots: slots.len() })
    };
    for (row, what) in rows.iter().enumerate() {
        match what {
            Row::Prompt { slot, index } => {
                let prompt_length = find(row, slot)?.prompt.len() / hidden;
                if index as usize >= prompt_length {
                    return Err(DeptEmbedError::Prompt { row, slot, index, prompt_length });
                }
            }
            Row::Token { token, delta } => {
                if token as usize >= vocab {
                    return Err(DeptEmbedError::Token { row, token, vocab });
                }
                if let Some(DeltaRow { slot, index }) = delta {
                    let max_length = find(row, slot)?.update.rows();
                    if index as usize >= max_length {
                        return Err(DeptEmbedError::Delta { row, slot, index, max_length });
                    }
                }
            }
        }
    }
    Ok(())
}

/// The op over a packed, checked row table. `(rows, 3) -> (rows, d)`
struct DeptEmbed<'a> {
    table: &'a EmbeddingTable,
    slots: &'a [AdapterSlot<'a>],
    pool: &'a ComputePool,
}

impl CustomOp1 for DeptEmbed<'_> {
    fn name(&self) -> &'static str {
        "dept-embed"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| candle_core::Error::msg("dept-embed takes a contiguous row table"))?;
        let rows = &storage.as_slice::<u32>()?[start..end];
        let hidden = self.table.hidden();
        let count = rows.len() / RowTable::WORDS;
        let mut out = vec![0f32; count * hidden]; // (rows, d)
        cpu::embed(self.table, self.slots, rows, &mut out, self.pool);
        Ok((CpuStorage::F32(out), Shape::from((count, hidden))))
    }
}
