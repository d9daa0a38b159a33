//! What adapters must fit.

use super::{generation::Generation, manifest::Task};
use crate::domain::AdapterName;

/// Why an adapter can't run on a model.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MisfitError {
    /// The name is the backbone's.
    #[error(
        "an adapter can't be named '{0}': that is the model's name; rename the adapter or start with --model-name"
    )]
    ModelName(AdapterName),
    /// Trained for another width.
    #[error(
        "adapter '{name}' is for a hidden size of {found}, and model '{model}' has {expected}: it was trained on another model"
    )]
    Hidden {
        /// The adapter.
        name: AdapterName,
        /// The model served.
        model: String,
        /// The model's d.
        expected: usize,
        /// The adapter's d.
        found: usize,
    },
    /// Trained for the other kind of model.
    #[error(
        "adapter '{name}' has task_type {found}, and model '{model}' is served as {expected}: it was trained on another kind of model"
    )]
    Task {
        /// The adapter.
        name: AdapterName,
        /// The model served.
        model: String,
        /// What the model is.
        expected: Task,
        /// What the adapter is for.
        found: Task,
    },
    /// Trained on other weights.
    #[error(
        "adapter '{name}' was trained on weights of fingerprint {found}, and model '{model}' has {expected}: its scores would not hold"
    )]
    Fingerprint {
        /// The adapter.
        name: AdapterName,
        /// The model served.
        model: String,
        /// The model's fingerprint.
        expected: String,
        /// The fingerprint in the adapter's card.
        found: String,
    },
}

/// What adapters must fit.
#[derive(Debug, Clone)]
pub struct BackboneShape {
    /// Hidden size d.
    pub hidden: usize,
    /// Encoder-decoder or decoder-only.
    pub task: Task,
    /// The model's name, which no adapter may bear.
    pub name: String,
    /// The fingerprint of its weights, where known; compared with cards that have one.
    pub fingerprint: Option<String>,
}

impl BackboneShape {
    /// Whether a generation can run on this backbone under its name.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(&self, generation: &Generation) -> Result<(), MisfitError> {
        let name = || generation.name().clone();
        let model = || self.name.clone();
        if generation.name().as_str() == self.name {
            return Err(MisfitError::ModelName(name()));
        }
        let (task, hidden) = (generation.manifest().task, generation.weights().hidden());
        if task != self.task {
            return Err(MisfitError::Task { name: name(), model: model(), expected: self.task, found: task });
        }
        if hidden != self.hidden {
            let expected = self.hidden;
            return Err(MisfitError::Hidden { name: name(), model: model(), expected, found: hidden });
        }
        match (&self.fingerprint, generation.card().base_fingerprint()) {
            (Some(expected), Some(found)) if expected != found => Err(MisfitError::Fingerprint {
                name: name(),
                model: model(),
                expected: expected.clone(),
                found: found.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}
