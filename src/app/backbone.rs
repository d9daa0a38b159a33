//! The families of models, and what the engine must know of each.

use std::num::NonZeroUsize;

use super::LoadModelError;
use crate::{
    backbones::{
        decoder::{Decoder, DecoderConfig},
        t5::{Reach, T5, T5Config},
        weights::Weights,
    },
    domain::{ContextWindow, ModelKind},
    layers::Loader,
    runner::{CausalRunner, KvDtype, Runner, RunnerConfig, RunnerError, T5Runner},
    scheduler::PromptPath,
};

/// A configuration of either family, read before the weights are.
pub(super) enum Dimensions {
    T5(T5Config),
    Decoder(Box<DecoderConfig>),
}

/// A resident model of either family.
#[derive(Debug)]
pub(super) enum Backbone {
    T5(Box<T5>),
    Decoder(Box<Decoder>),
}

impl Dimensions {
    /// What the checkpoint says it is.
    pub fn read(weights: &Weights) -> Result<Self, LoadModelError> {
        let named = |json: &serde_json::Value| json["model_type"].as_str().map(str::to_owned);
        let by_file = weights.metadata().map(|metadata| metadata.architecture().to_owned());
        let family = by_file.or_else(|| weights.config().and_then(named));
        // A folder without a word about its family is taken for T5, whose own errors then say what is missing.
        Ok(match family.as_deref() {
            None | Some("t5" | "mt5") => Self::T5(T5Config::read(weights)?),
            Some(_) => Self::Decoder(Box::new(DecoderConfig::read(weights)?)),
        })
    }

    /// Sequences of up to `max_model_len`, within what the model was made for.
    pub fn context(&self, max_model_len: usize) -> ContextWindow {
        match self {
            Self::T5(_) => ContextWindow::Apart { prompt_rows: max_model_len, new_tokens: max_model_len },
            Self::Decoder(config) => ContextWindow::Shared { rows: max_model_len.min(config.max_positions) },
        }
    }

    /// Packs the weights.
    pub fn load(self, loader: &Loader<'_>, context: ContextWindow) -> Result<Backbone, LoadModelError> {
        let (prompt, new_tokens) = (context.max_prompt_rows(0), context.max_new_tokens(0));
        Ok(match self {
            Self::T5(config) => {
                Backbone::T5(Box::new(T5::load(loader, config, Reach { prompt, new_tokens })?))
            }
            Self::Decoder(config) => Backbone::Decoder(Box::new(Decoder::load(loader, *config, prompt)?)),
        })
    }
}

impl Backbone {
    /// How it reads its prompt.
    pub fn kind(&self) -> ModelKind {
        match self {
            Self::T5(_) => ModelKind::Seq2Seq,
            Self::Decoder(_) => ModelKind::Causal,
        }
    }

    /// Width of an embedding row.
    pub fn hidden(&self) -> usize {
        match self {
            Self::T5(model) => model.config().hidden,
            Self::Decoder(model) => model.config().hidden,
        }
    }

    /// Rows of the embedding table.
    pub fn vocab(&self) -> usize {
        match self {
            Self::T5(model) => model.config().vocab,
            Self::Decoder(model) => model.config().vocab,
        }
    }

    /// The tokens that end a text.
    pub fn eos(&self) -> Vec<u32> {
        match self {
            Self::T5(model) => vec![model.config().eos],
            Self::Decoder(model) => model.config().eos.clone(),
        }
    }

    /// The token that a text starts from, where it does not continue its prompt.
    pub fn decoder_start(&self) -> Option<u32> {
        match self {
            Self::T5(model) => Some(model.config().decoder_start),
            Self::Decoder(_) => None,
        }
    }

    /// How prompts enter.
    pub fn prompts(&self) -> PromptPath {
        match self {
            Self::T5(model) => PromptPath::Encoder { layers: model.config().encoder_layers },
            Self::Decoder(_) => PromptPath::Decoder,
        }
    }

    /// Bytes of a K/V block.
    pub fn block_bytes(&self, block_size: NonZeroUsize, kv_dtype: KvDtype) -> usize {
        match self {
            Self::T5(model) => T5Runner::block_bytes(model, block_size, kv_dtype),
            Self::Decoder(model) => CausalRunner::block_bytes(model, block_size, kv_dtype),
        }
    }

    /// A runner with empty K/V memory.
    pub fn runner(self, config: RunnerConfig) -> Result<Box<dyn Runner>, RunnerError> {
        Ok(match self {
            Self::T5(model) => Box::new(T5Runner::new(*model, config)?),
            Self::Decoder(model) => Box::new(CausalRunner::new(*model, config)?),
        })
    }
}
