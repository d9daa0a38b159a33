//! Whole texts with their answers through the model at once, as training wants it: no slabs, and gradients to the adapter.

use candle_core::{Result, Tensor};

use super::T5;
use crate::{
    backbones::TextPair,
    kernels::{
        dept_embed::{Adapters, DeltaRow, Row, RowTable, TrainedSlot, dept_embed_tracked},
        pool::ComputePool,
        ragged_attention::{Keys, Span, SpanTables},
    },
};

impl T5 {
    /// The logits of every target token, pair by pair: `(target tokens, vocab)`. The rows of a source are
    /// `[P; E + delta]`, token `i` with delta row `i`.
    ///
    /// # Errors
    /// When a pair does not fit the adapter or the model's reach.
    pub fn teacher_forced(&self, adapter: &TrainedSlot, pairs: &[TextPair<'_>]) -> Result<Tensor> {
        let m = adapter.prompt.dim(0)?;
        let updated = adapter.pair.is_some();
        let (mut sources, mut targets) = (RowTable::default(), RowTable::default());
        let (mut among_source, mut among_target, mut over_source) = (Vec::new(), Vec::new(), Vec::new());
        for pair in pairs {
            let (source, target) = (sources.len(), targets.len());
            (0..m as u32).for_each(|index| sources.push(Row::Prompt { slot: 0, index }));
            for (index, &token) in (0..).zip(pair.source) {
                sources.push(Row::Token { token, delta: updated.then_some(DeltaRow { slot: 0, index }) });
            }
            let before = pair.target.iter().rev().skip(1).rev();
            for &token in std::iter::once(&self.config.decoder_start).chain(before) {
                targets.push(Row::Token { token, delta: None });
            }
            let (source, target) = (source..sources.len(), target..targets.len());
            among_source.push(whole(source.clone(), source.clone(), false));
            over_source.push(whole(target.clone(), source, false));
            among_target.push(whole(target.clone(), target, true));
        }
        let hidden = dept_embed_tracked(self.table.host()?, adapter, &sources, &self.pool)?; // (source rows, hidden)
        let hidden = self.encode(hidden, &among_source, 0..self.encoder.len())?;
        let encoded = self.finish_encoder(&hidden)?;
        let mut hidden = self.embed(&Adapters::default(), &targets)?; // (target rows, hidden)
        let [past_tables, prompt_tables] = [SpanTables::at(&self.place), SpanTables::at(&self.place)];
        let past = self.attention((&among_target, &past_tables), Some(&self.decoder_bias));
        let prompt = self.attention((&over_source, &prompt_tables), None);
        for block in &self.decoder {
            hidden = block.attention.among_rows(&hidden, &past)?;
            hidden = block.cross.among_rows(&hidden, &encoded, &prompt)?;
            hidden = block.mlp.forward(&hidden)?;
        }
        self.logits(&self.decoder_norm.forward(&hidden)?)
    }

    /// The rows of the embedding table for `tokens`. `(tokens, hidden)`
    ///
    /// # Errors
    /// When a token lies outside of the vocabulary.
    pub fn token_rows(&self, tokens: &[u32]) -> Result<Tensor> {
        let mut rows = RowTable::with_capacity(tokens.len());
        tokens.iter().for_each(|&token| rows.push(Row::Token { token, delta: None }));
        self.embed(&Adapters::default(), &rows)
    }

    /// The threads that it computes on.
    pub fn pool(&self) -> &ComputePool {
        &self.pool
    }
}

/// Rows `queries` that see the rows `keys`.
fn whole(queries: std::ops::Range<usize>, keys: std::ops::Range<usize>, causal: bool) -> Span<'static> {
    let (context, keys) = (keys.len(), Keys::Rows { start: keys.start });
    Span { queries, first_position: 0, context, keys, causal }
}
