use std::{fmt::Debug, sync::Arc, time::Duration};

use prometheus::IntCounter;

use crate::{
    domain::Completion,
    telemetry::{Metrics, Phase},
};

/// Watches the engine. Called on the engine's thread: implementations do not block.
pub trait Observer: Debug + Send {
    /// A step has ended.
    fn step(&self, step: &StepReport);
    /// So many sequences wait to start, so many have started and not ended, and this share of the K/V blocks is used.
    fn load(&self, waiting: usize, running: usize, kv_usage: f64);
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
    /// What it worked on: prompts where it had any.
    pub phase: Phase,
    /// Sequences that it worked on.
    pub sequences: usize,
    /// Prompt and decoder rows that it computed.
    pub rows: usize,
    /// Sequences that wait for their first or next admission.
    pub waiting: usize,
    /// Sequences that are being encoded or decoded.
    pub running: usize,
    /// Used K/V blocks over all K/V blocks, 0 to 1, before ended sequences give theirs back.
    pub kv_usage: f64,
    /// Preemptions since the start.
    pub preemptions: u64,
    /// Prompt rows looked up in the prefix cache since the start.
    pub prefix_queries: u64,
    /// Those of them that were found.
    pub prefix_hits: u64,
}

/// Counts everything.
impl Observer for Arc<Metrics> {
    fn step(&self, step: &StepReport) {
        self.step_duration.observe(step.phase, step.duration);
        self.batch_sequences.observe(step.sequences);
        self.batch_tokens.observe(step.rows);
        let reach = |counter: &IntCounter, total: u64| counter.inc_by(total.saturating_sub(counter.get()));
        reach(&self.preemptions, step.preemptions);
        reach(&self.prefix_cache_queries, step.prefix_queries);
        reach(&self.prefix_cache_hits, step.prefix_hits);
    }

    fn load(&self, waiting: usize, running: usize, kv_usage: f64) {
        self.kv_cache_usage.set(kv_usage);
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
    fn load(&self, _: usize, _: usize, _: f64) {}
    fn token(&self, _: bool, _: Duration) {}
    fn finished(&self, _: &Completion) {}
}
