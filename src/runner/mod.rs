//! Executes a step plan on a backbone: the one place that owns weights and K/V tensors.

use crate::{
    sampling::{SampleError, Sampled},
    scheduler::{SequenceId, Sequences, StepPlan},
};

#[cfg(test)]
pub mod fake;
mod t5;

pub use t5::{RunnerConfig, T5Runner};

/// Why a step failed as a whole. Nothing that it worked on can go on.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The backbone failed.
    #[error("the backbone failed: {0}")]
    Backbone(#[from] candle_core::Error),
    /// The plan names a sequence that is not live. A bug.
    #[error("the plan names sequence {0:?}, which is not live")]
    NoSequence(SequenceId),
}

/// What a step produced: a token, or why there is none, for each planned decode, in the plan's order.
#[derive(Debug, Default)]
pub struct StepOutput {
    /// By sequence.
    pub tokens: Vec<(SequenceId, Result<Sampled, SampleError>)>,
}

/// A backbone that executes plans. It lives on the engine's thread.
pub trait Runner: Send {
    /// Executes `plan` on `sequences` and leaves the tokens in `output`, which is empty before.
    ///
    /// # Errors
    /// When the step fails as a whole.
    fn step(
        &mut self,
        plan: &StepPlan,
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), RunnerError>;
}
