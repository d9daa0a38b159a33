//! What adapters must fit.

use super::RegistryError;
use crate::adapter::{generation::Generation, manifest::Task};

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
    pub fn check(&self, generation: &Generation) -> Result<(), RegistryError> {
        let name = || generation.name().clone();
        let model = || self.name.clone();
        if generation.name().as_str() == self.name {
            return Err(RegistryError::ModelName(name()));
        }
        let (task, hidden) = (generation.manifest().task, generation.weights().hidden());
        if task != self.task {
            return Err(RegistryError::Task {
                name: name(),
                model: model(),
                expected: self.task,
                found: task,
            });
        }
        if hidden != self.hidden {
            let expected = self.hidden;
            return Err(RegistryError::Hidden { name: name(), model: model(), expected, found: hidden });
        }
        match (&self.fingerprint, generation.card().base_fingerprint()) {
            (Some(expected), Some(found)) if expected != found => Err(RegistryError::Fingerprint {
                name: name(),
                model: model(),
                expected: expected.clone(),
                found: found.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}
