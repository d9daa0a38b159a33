//! Decoder-only models over packed rows without padding: one block, of which every family is a configuration.
//!
//! A row is a position of some sequence. It appends its keys and values to a slab that a runner owns and attends to its
//! sequence's past there, so a prompt may come whole or in pieces, among any neighbours, and give the same bits.

use candle_core::{Result, Tensor};

use crate::{
    kernels::{
        Place, RowIndices,
        dept_embed::{Adapters, PlacedTable, RowTable},
        linear::LinearMap,
        norm::Norm,
        pool::ComputePool,
        ragged_attention::{Attention, Span, SpanTables},
        soft_cap::SoftCap,
    },
    layers::{DecoderBlock, LoadError, Loader, RowPlaces},
};

mod build;
mod config;
mod teacher_forced;

pub use config::{Architecture, Biases, ConfigError, DecoderConfig, Names, Positions, SoftCaps};

/// A resident decoder-only model.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    table: PlacedTable,
    /// Learned positions. `(max_positions, hidden)`
    positions: Option<Tensor>,
    blocks: Vec<DecoderBlock>,
    norm: Norm,
    head: LinearMap,
    cap: Option<SoftCap>,
    place: Place,
    pool: ComputePool,
}

/// The rows of a step.
#[derive(Debug, Clone, Copy)]
pub struct CausalBatch<'a> {
    /// Each sequence's rows and its own past, causal.
    pub spans: &'a [Span<'a>],
    /// Each row's position.
    pub positions: &'a RowIndices,
    /// Where each row's K/V go.
    pub slots: &'a RowIndices,
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
    pub fn embed(&self, adapters: &Adapters<'_>, rows: &RowTable, positions: &RowIndices) -> Result<Tensor> {
        self.add_positions(self.table.embed(adapters, rows, &self.pool)?, positions)
    }

    /// Adds learned positions, where the model has such. `(rows, hidden) -> (rows, hidden)`
    fn add_positions(&self, embedded: Tensor, positions: &RowIndices) -> Result<Tensor> {
        match &self.positions {
            None => Ok(embedded),
            Some(learned) => embedded + learned.index_select(positions.on(learned.device())?, 0)?,
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
        let tables = SpanTables::at(&self.place);
        let attention = self.attention(batch.spans, &tables);
        let places = RowPlaces { positions: batch.positions, slots: batch.slots };
        for (block, slab) in self.blocks.iter().zip(batch.slabs) {
            hidden = block.forward(&hidden, &attention, places, slab)?;
        }
        self.norm.forward(&hidden)
    }

    fn attention<'a>(&'a self, spans: &'a [Span<'a>], tables: &'a SpanTables) -> Attention<'a> {
        Attention {
            heads: self.config.heads,
            scale: self.config.attention_scale,
            soft_cap: self.config.soft_caps.scores,
            bias: None,
            window: None,
            spans,
            pool: &self.pool,
            tables: Some(tables),
        }
    }

    /// Where it computes.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The logits of rows. `(rows, hidden) -> (rows, vocab)`
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = self.head.forward(hidden)?;
        match &self.cap {
            None => Ok(logits),
            Some(cap) => cap.forward(&logits),
        }
    }
}
