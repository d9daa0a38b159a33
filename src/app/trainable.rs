//! A model that is loaded to be trained in front of.

use std::num::NonZeroUsize;

use super::{
    backbone::{Backbone, Dimensions},
    load::{LoadModelError, locate, read_tokenizer},
    place::isa,
};
use crate::{
    backbones::weights::Weights,
    config::{Device, Dtype, EngineConfig},
    domain::ContextWindow,
    kernels::{Place, linear::Isa, pool::ComputePool},
    layers::{Loader, PackedParts},
    tokenizer::Tokenizer,
    training,
};

/// A checkpoint that is open, its weights not packed yet: what data needs comes first.
pub struct Trainable {
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// The most rows of a sequence, where the model has a bound.
    pub most_rows: Option<usize>,
    /// The tokens that end a text.
    pub eos: Option<u32>,
    weights: Weights,
    dimensions: Dimensions,
    threads: NonZeroUsize,
    isa: Isa,
}

impl Trainable {
    /// Opens a model.
    ///
    /// # Errors
    /// When it is not there or of no family that can be trained in front of.
    pub fn open(config: &EngineConfig) -> Result<Self, LoadModelError> {
        if let Device::Cuda(ordinal) = config.device {
            return Err(LoadModelError::TrainsOnCpu(ordinal));
        }
        let isa = isa(config.cpu_isa)?;
        let path = locate(&config.model)?;
        let weights = Weights::open(&path)?;
        let dimensions = Dimensions::read(&weights)?;
        let tokenizer = read_tokenizer(&path, &weights)?;
        let (most_rows, eos) = match &dimensions {
            Dimensions::T5(config) => (None, Some(config.eos)),
            Dimensions::Decoder(config) => (Some(config.max_positions), config.eos.first().copied()),
        };
        let threads = NonZeroUsize::new(config.threads).unwrap_or(NonZeroUsize::MIN);
        Ok(Self { tokenizer, most_rows, eos, weights, dimensions, threads, isa })
    }

    /// The fingerprint of its weights, as cards name it.
    pub fn fingerprint(&self) -> String {
        self.weights.fingerprint().to_owned()
    }

    /// Whether it is an encoder-decoder.
    pub fn is_seq2seq(&self) -> bool {
        matches!(self.dimensions, Dimensions::T5(_))
    }

    /// Packs the weights for sources of `prompt_rows` (m + s) and answers of `new_tokens`.
    ///
    /// # Errors
    /// When a tensor is missing or broken, or no thread is to be had.
    pub fn load(
        self,
        dtype: Dtype,
        prompt_rows: usize,
        new_tokens: usize,
    ) -> Result<training::Backbone, LoadModelError> {
        let pool = ComputePool::new(self.threads)?;
        let loader = Loader {
            weights: &self.weights,
            place: Place::Cpu,
            recipe: dtype.into(),
            pool,
            isa: self.isa,
            gradients: true,
            packed: PackedParts::Fresh,
        };
        let context = match self.is_seq2seq() {
            true => ContextWindow::Apart { prompt_rows, new_tokens },
            false => ContextWindow::Shared { rows: prompt_rows + new_tokens },
        };
        Ok(match self.dimensions.load(&loader, context)? {
            Backbone::T5(model) => training::Backbone::T5(model),
            Backbone::Decoder(model) => training::Backbone::Decoder(model),
        })
    }
}
