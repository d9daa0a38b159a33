use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::IntCounter;

use crate::{
    domain::{AdapterName, Completion},
    kernels::dept_embed::ResidentUse,
    telemetry::{Metrics, Phase},
};

/// Watches the engine. Called on the engine's thread: implementations do not block.
pub trait Observer: Debug + Send {
    /// The engine has work and begins a turn: it plans a step, runs it and hands out what came of it.
    fn turn_began(&self, _now: Instant) {}
    /// The turn has ended.
    fn turn_ended(&self) {}
    /// A step has ended.
    fn step(&self, step: &StepReport);
    /// A sequence with this adapter has come and waits.
    fn adapter_came(&self, _adapter: &AdapterName) {}
    /// The first step that works on such a sequence begins.
    fn adapter_started(&self, _adapter: &AdapterName) {}
    /// A sequence with this adapter is gone; whether a step had worked on it.
    fn adapter_left(&self, _adapter: &AdapterName, _started: bool) {}
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
    /// Adapters in the device's own memory.
    pub residents: ResidentUse,
}

/// Counts everything.
impl Observer for Arc<Metrics> {
    fn turn_began(&self, now: Instant) {
        self.step_age.began(now);
    }

    fn turn_ended(&self) {
        self.step_age.ended();
    }

    fn adapter_came(&self, adapter: &AdapterName) {
        self.lora_requests.came(adapter);
    }

    fn adapter_started(&self, adapter: &AdapterName) {
        self.lora_requests.started(adapter);
    }

    fn adapter_left(&self, adapter: &AdapterName, started: bool) {
        self.lora_requests.left(adapter, started);
    }

    fn step(&self, step: &StepReport) {
        self.step_duration.observe(step.phase, step.duration);
        self.batch_sequences.observe(step.sequences);
        self.batch_tokens.observe(step.rows);
        let reach = |counter: &IntCounter, total: u64| counter.inc_by(total.saturating_sub(counter.get()));
        reach(&self.preemptions, step.preemptions);
        reach(&self.prefix_cache_queries, step.prefix_queries);
        reach(&self.prefix_cache_hits, step.prefix_hits);
        self.adapters.device.set(step.residents.adapters as i64);
        self.adapter_bytes.device.set(step.residents.bytes as i64);
        reach(&self.adapter_evictions.device, step.residents.evictions);
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
