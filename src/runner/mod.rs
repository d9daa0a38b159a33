//! Executes a step plan on a backbone: the one place that owns weights and K/V tensors.

use std::num::NonZeroUsize;

use candle_core::DType;

use crate::{
    domain::GivenToken,
    kernels::{Place, dept_embed::ResidentUse},
    sampling::{SampleError, Sampled},
    scheduler::{SequenceId, Sequences, StepPlan},
};

mod adapters;
mod batch;
mod causal;
#[cfg(test)]
pub mod fake;
mod t5;

pub use adapters::Fetch;
pub use causal::CausalRunner;
pub use t5::T5Runner;

/// The numbers that keys and values are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvDtype {
    /// As they are computed: f32 on the CPU, on a GPU as the weights.
    Computed,
    /// f16, on the CPU: half the memory, and half of what every step reads of the past.
    F16,
}

impl KvDtype {
    /// The numbers of slabs at `place`.
    fn at(self, place: &Place) -> DType {
        match (self, place) {
            (Self::F16, Place::Cpu) => DType::F16,
            (Self::F16, Place::Dense(_)) | (Self::Computed, _) => place.dtype(),
        }
    }
}

/// The memory of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerConfig {
    /// For adapters on a GPU, in bytes; of no account on the CPU, which reads them where they are.
    pub adapter_bytes: usize,
    /// The numbers in the slabs.
    pub kv_dtype: KvDtype,
    /// Blocks in every slab.
    pub num_blocks: u32,
    /// Positions a block.
    pub block_size: NonZeroUsize,
}

/// Why a step failed, or its half that works on prompts.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The prompts of the plan's cohort can't go on; nothing was decoded, and what decodes can be planned again.
    #[error("prompts: {0}")]
    Encode(#[source] RunnerError),
    /// Nothing that is decoded can go on, nor prompts whose last blocks the same step ran.
    #[error("decoding: {0}")]
    Decode(#[source] RunnerError),
}

/// What goes wrong inside a runner.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The backbone failed.
    #[error("the backbone failed: {0}")]
    Backbone(#[from] candle_core::Error),
    /// The plan names a sequence that is not live. A bug.
    #[error("the plan names sequence {0:?}, which is not live")]
    NoSequence(SequenceId),
}

/// What a step produced: a token, or why there is none, for each planned decode that samples, in no order.
#[derive(Debug, Default)]
pub struct StepOutput {
    /// By sequence.
    pub tokens: Vec<(SequenceId, Result<Sampled, SampleError>)>,
    /// Tokens that were given and are scored, in the order of each sequence's rows.
    pub scores: Vec<(SequenceId, Result<GivenToken, SampleError>)>,
}

impl StepOutput {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.scores.clear();
    }
}

/// A backbone that executes plans. It lives on the engine's thread.
pub trait Runner: Send {
    /// Executes `plan` on `sequences` and leaves the tokens in `output`, which is empty before.
    ///
    /// # Errors
    /// When one half of the step fails.
    fn step(
        &mut self,
        plan: &StepPlan,
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), StepError>;

    /// What the device's own memory has of adapters; nothing where they are read in the host's.
    fn resident_use(&self) -> ResidentUse {
        ResidentUse::default()
    }

    /// The way to have adapters brought to that memory before a step needs them.
    fn fetch(&self) -> Fetch {
        Fetch::default()
    }
}

impl Runner for Box<dyn Runner> {
    fn step(
        &mut self,
        plan: &StepPlan,
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        (**self).step(plan, sequences, output)
    }

    fn resident_use(&self) -> ResidentUse {
        (**self).resident_use()
    }

    fn fetch(&self) -> Fetch {
        (**self).fetch()
    }
}
