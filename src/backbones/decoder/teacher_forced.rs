//! Whole texts with their answers through the model at once, as training wants it: no slabs, and gradients to the adapter.

use candle_core::{Device, Result, Tensor};

use super::Decoder;
use crate::{
    backbones::TextPair,
    kernels::{
        RowIndices,
        dept_embed::{Adapters, DeltaRow, Row, RowTable, TrainedSlot, dept_embed_tracked},
        pool::ComputePool,
        ragged_attention::{Keys, Span, SpanTables},
    },
};

/// The packed rows of a batch.
#[derive(Default)]
struct Rows {
    rows: RowTable,
    positions: RowIndices,
    spans: Vec<Span<'static>>,
    /// The rows whose logits are wanted: each in front of a target token.
    read: Vec<u32>,
}

impl Decoder {
    /// The logits of every target token, pair by pair: `(target tokens, vocab)`. A sequence is `[P; source; target]`; token
    /// `j` of a source of `n` takes delta row `s - n + j`, target tokens take none.
    ///
    /// # Errors
    /// When a pair does not fit the adapter or the model's positions.
    pub fn teacher_forced(&self, adapter: &TrainedSlot, pairs: &[TextPair<'_>]) -> Result<Tensor> {
        let mut batch = Rows::default();
        for pair in pairs {
            batch.push(adapter, pair)?;
        }
        let embedded = dept_embed_tracked(self.table.host()?, adapter, &batch.rows, &self.pool)?;
        let mut hidden = self.add_positions(embedded, &batch.positions)?; // (rows, hidden)
        let tables = SpanTables::at(&self.place);
        let attention = self.attention(&batch.spans, &tables);
        for block in &self.blocks {
            hidden = block.among_rows(&hidden, &attention, &batch.positions)?;
        }
        let read = hidden.index_select(&Tensor::new(&batch.read[..], &Device::Cpu)?, 0)?; // (target tokens, hidden)
        self.logits(&self.norm.forward(&read)?)
    }

    /// The rows of the embedding table for `tokens`. `(tokens, hidden)`
    ///
    /// # Errors
    /// When a token lies outside of the vocabulary.
    pub fn token_rows(&self, tokens: &[u32]) -> Result<Tensor> {
        let mut rows = RowTable::with_capacity(tokens.len());
        tokens.iter().for_each(|&token| rows.push(Row::Token { token, delta: None }));
        self.table.embed(&Adapters::default(), &rows, &self.pool)
    }

    /// The threads that it computes on.
    pub fn pool(&self) -> &ComputePool {
        &self.pool
    }
}

impl Rows {
    fn push(&mut self, adapter: &TrainedSlot, pair: &TextPair<'_>) -> Result<()> {
        let m = adapter.prompt.dim(0)?;
        let s = adapter.pair.as_ref().map(|pair| pair.a.dim(0)).transpose()?;
        let (n, start) = (pair.source.len(), self.rows.len());
        if let Some(s) = s.filter(|&s| s < n) {
            candle_core::bail!("a source of {n} tokens is longer than s = {s}");
        }
        (0..m as u32).for_each(|index| self.rows.push(Row::Prompt { slot: 0, index }));
        for (j, &token) in pair.source.iter().enumerate() {
            let delta = s.map(|s| DeltaRow { slot: 0, index: (s - n + j) as u32 });
            self.rows.push(Row::Token { token, delta });
        }
        let first_read = self.rows.len() as u32 - 1;
        for &token in pair.target.iter().rev().skip(1).rev() {
            self.rows.push(Row::Token { token, delta: None });
        }
        self.read.extend((first_read..).take(pair.target.len()));
        let queries = start..self.rows.len();
        self.positions.extend(0..queries.len() as u32);
        let context = queries.len();
        self.spans.push(Span {
            queries,
            first_position: 0,
            context,
            keys: Keys::Rows { start },
            causal: true,
        });
        Ok(())
    }
}
