use std::ops::RangeInclusive;

use super::Architecture;

/// Why a checkpoint's configuration is not one of a decoder-only model that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is none.
    #[error(
        "'{0}' has no config.json: a model folder holds config.json, model.safetensors and tokenizer.json"
    )]
    Missing(String),
    /// Another kind of model.
    #[error(
        "the model is of the architecture '{found}', which can't be run; supported decoders are {}",
        supported()
    )]
    Unsupported {
        /// What the checkpoint calls it.
        found: String,
    },
    /// A key that has no default is absent.
    #[error("the model's configuration has no '{0}': fetch or convert the model again")]
    Key(String),
    /// A value makes no sense or is not computed here.
    #[error("the model's configuration says {what} is {found}: expected {expected}")]
    Value {
        /// Which value.
        what: String,
        /// What it is.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// A tensor that the configuration needs can't be read.
    #[error(transparent)]
    Weights(#[from] crate::backbones::weights::WeightsError),
}

impl ConfigError {
    pub(super) fn value(what: &str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Value { what: what.to_owned(), found: found.into(), expected: expected.into() }
    }

    pub(super) fn limit(what: &str, value: usize, range: RangeInclusive<usize>) -> Result<(), Self> {
        if range.contains(&value) {
            return Ok(());
        }
        Err(Self::value(what, value.to_string(), format!("{} to {}", range.start(), range.end())))
    }
}

fn supported() -> String {
    Architecture::ALL.map(Architecture::name).join(", ")
}
