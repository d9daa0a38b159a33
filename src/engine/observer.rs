use std::{fmt::Debug, sync::Arc, time::Duration};

use crate::{
    domain::Completion,
    telemetry::{Metrics, Phase},
};

/// Watches the engine. Called on the engine's thread: implementations do not block.
pub trait Observer: Debug + Send {
    /// A step has ended.
    fn step(&self, step: &StepReport);
    /// So many sequences wait to start, and so many have started and not ended.
    fn load(&self, waiting: usize, running: usize);
    /// A sequence has got a token, this long after its previous one (or after its submission).
    fn token(&self, first: bool, since: Duration);
    /// A sequence has ended regularly.
    fn finished(&self, completion: &Completion);
}

/// What a step was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// How long it took.
    pub duration: Duration,
    /// Whether it encoded prompts.
    pub encoded: bool,
    /// Sequences that it worked on.
    pub sequences: usize,
    /// Prompt and decoder rows that it computed.
    pub rows: usize,
    /// Sequences that wait for their first or next admission.
    pub waiting: usize,
    /// Sequences that are being encoded or decoded.
    pub running: usize,
    /// Used K/V blocks over all K/V blocks, 0 to 1.
    pub kv_usage: f64,
    /// Preemptions since the start.
    pub preemptions: u64,
}

/// Counts everything.
impl Observer for Arc<Metrics> {
    fn step(&self, step: &StepReport) {
        let phase = if step.encoded { Phase::Encode } else { Phase::Decode };
        self.step_duration.observe(phase, step.duration);
        self.batch_sequences.observe(step.sequences);
        self.batch_tokens.observe(step.rows);
        self.kv_cache_usage.set(step.kv_usage);
        self.preemptions.inc_by(step.preemptions.saturating_sub(self.preemptions.get()));
    }

    fn load(&self, waiting: usize, running: usize) {
        self.requests_waiting.set(waiting as i64);
        self.requests_running.set(running as i64);
    }

    fn token(&self, first: bool, since: Duration) {
        let latency = if first { &self.time_to_first_token } else { &self.inter_token_latency };
        latency.observe(since);
    }

    fn finished(&self, completion: &Completion) {
        self.queue_duration.observe(completion.timings.queue);
        self.prompt_tokens.inc_by(completion.usage.prompt_tokens as u64);
        self.virtual_tokens.inc_by(completion.usage.virtual_tokens as u64);
        self.generated_tokens.inc_by(completion.usage.completion_tokens as u64);
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn step(&self, _: &StepReport) {}
    fn load(&self, _: usize, _: usize) {}
    fn token(&self, _: bool, _: Duration) {}
    fn finished(&self, _: &Completion) {}
}
