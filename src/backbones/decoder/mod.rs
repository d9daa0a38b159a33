//! Decoder-only models over packed rows without padding: one block, of which every family is a configuration.
//!
//! A row is a position of some sequence. It appends its keys and values to a slab that a runner owns and attends to its
//! sequence's past there, so a prompt may come whole or in pieces, among any neighbours, and give the same bits.

use candle_core::{Device, Result, Tensor};

use crate::{
    kernels::{
        dept_embed::{AdapterSlot, EmbeddingTable, RowTable, dept_embed},
        linear::Linear,
        norm::Norm,
        pool::ComputePool,
        ragged_attention::{Attention, Span},
    },
    layers::{DecoderBlock, LoadError, Loader, RowPlaces},
};

mod build;
mod config;
mod teacher_forced;

pub use config::{Architecture, Biases, ConfigError, DecoderConfig, Names, Positions};

/// A resident decoder-only model.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    table: EmbeddingTable,
    /// Learned positions. `(max_positions, hidden)`
    positions: Option<Tensor>,
    blocks: Vec<DecoderBlock>,
    norm: Norm,
    head: Linear,
    pool: ComputePool,
}

/// The rows of a step.
#[derive(Debug, Clone, Copy)]
pub struct CausalBatch<'a> {
    /// Each sequence's rows and its own past, causal.
    pub spans: &'a [Span<'a>],
    /// Each row's position.
    pub positions: &'a [u32],
    /// Where each row's K/V go.
    pub slots: &'a [u32],
    /// K/V of every block. `(slots, [k; v])`
    pub slabs: &'a [Tensor],
}

impl Decoder {
    /// Builds the model from its checkpoint, for sequences of `positions` at most.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape or is not finite.
    pub fn load(
        loader: &Loader<'_>,
        config: DecoderConfig,
        positions: usize,
    ) -> std::result::Result<Self, LoadError> {
        build::decoder(loader, config, positions)
    }

    /// The model's dimensions.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Number of blocks, and of slabs.
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Columns of a slab row: keys and values of one position in one block.
    pub fn slab_width(&self) -> usize {
        2 * self.config.heads.kv_width()
    }

    /// Embeds rows, adapters applied, learned positions added to every one of them. Returns `(rows, hidden)`.
    ///
    /// # Errors
    /// When a row points outside the table or its slot, or a position lies beyond the learned ones.
    pub fn embed(&self, slots: &[AdapterSlot<'_>], rows: &RowTable, positions: &[u32]) -> Result<Tensor> {
        let embedded = dept_embed(&self.table, slots, rows, &self.pool)?;
        match &self.positions {
            None => Ok(embedded),
            Some(learned) => embedded + learned.index_select(&Tensor::new(positions, &Device::Cpu)?, 0)?,
        }
    }

    /// Runs embedded rows through all blocks and the last norm. `(rows, hidden) -> (rows, hidden)`, ready for
    /// [`Decoder::logits`].
    ///
    /// # Errors
    /// When spans, positions or slots do not fit.
    pub fn forward(&self, mut hidden: Tensor, batch: &CausalBatch<'_>) -> Result<Tensor> {
        if batch.slabs.len() != self.blocks.len() {
            candle_core::bail!("{} slabs for {} blocks", batch.slabs.len(), self.blocks.len())
        }
        let attention = Attention {
            heads: self.config.heads,
            scale: self.config.attention_scale,
            bias: None,
            window: None,
            spans: batch.spans,
            pool: &self.pool,
        };
        let places = RowPlaces { positions: batch.positions, slots: batch.slots };
        for (block, slab) in self.blocks.iter().zip(batch.slabs) {
            hidden = block.forward(&hidden, &attention, places, slab)?;
        }
        self.norm.forward(&hidden)
    }

    /// The logits of rows. `(rows, hidden) -> (rows, vocab)`
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.forward(hidden)
    }
}
