use candle_core::{Result, Tensor};

use super::parameters::{Gradients, Parameters};
use crate::{
    adapter::Task,
    backbones::{TextPair, decoder::Decoder, t5::T5},
    kernels::{cross_entropy::CrossEntropy, dept_embed::TrainedSlot, pool::ComputePool},
};

/// A frozen model that passes gradients to what stands in front of it: loaded with
/// [`Loader::gradients`](crate::layers::Loader::gradients).
#[derive(Debug)]
pub enum Backbone {
    /// Encoder-decoder.
    T5(Box<T5>),
    /// Decoder-only.
    Decoder(Box<Decoder>),
}

impl Backbone {
    /// The kind of adapter that it takes.
    pub fn task(&self) -> Task {
        match self {
            Self::T5(_) => Task::Seq2SeqLm,
            Self::Decoder(_) => Task::CausalLm,
        }
    }

    /// Width of an embedding row.
    pub fn hidden(&self) -> usize {
        match self {
            Self::T5(model) => model.config().hidden,
            Self::Decoder(model) => model.config().hidden,
        }
    }

    /// Blocks (of the encoder) and heads, which adapter configs name.
    pub fn layers_and_heads(&self) -> (usize, usize) {
        match self {
            Self::T5(model) => (model.config().encoder_layers, model.config().heads),
            Self::Decoder(model) => (model.layers(), model.config().heads.heads),
        }
    }

    /// The rows of the embedding table for `tokens`. `(tokens, hidden)`
    ///
    /// # Errors
    /// When a token lies outside of the vocabulary.
    pub fn token_rows(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let rows = match self {
            Self::T5(model) => model.token_rows(tokens)?,
            Self::Decoder(model) => model.token_rows(tokens)?,
        };
        rows.flatten_all()?.to_vec1()
    }

    fn logits(&self, slot: &TrainedSlot, pairs: &[TextPair<'_>]) -> Result<Tensor> {
        match self {
            Self::T5(model) => model.teacher_forced(slot, pairs),
            Self::Decoder(model) => model.teacher_forced(slot, pairs),
        }
    }

    fn pool(&self) -> &ComputePool {
        match self {
            Self::T5(model) => model.pool(),
            Self::Decoder(model) => model.pool(),
        }
    }

    fn loss(&self, slot: &TrainedSlot, pairs: &[TextPair<'_>], weight: f32) -> Result<Tensor> {
        let targets = pairs.iter().flat_map(|pair| pair.target.iter().copied()).collect();
        let loss = CrossEntropy { targets, weight, pool: self.pool().clone() };
        loss.forward(&self.logits(slot, pairs)?)
    }

    /// `weight` times the sum of the target tokens' negative log-likelihoods, and its gradients.
    ///
    /// # Errors
    /// When a pair does not fit the adapter or the model.
    pub fn gradients(
        &self,
        parameters: &Parameters,
        pairs: &[TextPair<'_>],
        weight: f32,
    ) -> Result<(f32, Gradients)> {
        let leaves = parameters.leaves()?;
        let loss = self.loss(&leaves.slot(), pairs, weight)?;
        let found = loss.backward()?;
        Ok((loss.to_scalar()?, leaves.gradients(&found)?))
    }
}
