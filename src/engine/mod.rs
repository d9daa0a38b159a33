//! The loop on its own thread, and the handle to it.
//!
//! Only this thread changes the scheduler, the K/V blocks and the runner. It never awaits and never waits for a client:
//! events go into unbounded channels, which `max_tokens` bounds. A client that goes away cancels its sequence.

mod client;
mod handle;
mod load;
mod observer;
mod outcome;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Instant,
};

use client::Client;
pub use handle::{Arrival, Command, EngineHandle, Submission, SubmitError, TokenStream};
use load::DrainRate;
pub use load::{Load, QueueLimits};
pub use observer::{Observer, StepReport, Unobserved};

use crate::{
    domain::SequenceError,
    grammar::Guide,
    runner::{Runner, StepOutput},
    sampling::Sampler,
    scheduler::{NewSequence, Scheduler, SequenceId, StepPlan},
    telemetry::Phase,
    tokenizer::Tokenizer,
};

#[cfg(test)]
mod tests;

/// What the engine needs beside its runner.
#[derive(Debug)]
pub struct EngineParts {
    /// The other end of the [`EngineHandle`].
    pub inbox: mpsc::Receiver<Command>,
    /// The load that the handle shows.
    pub load: Arc<Load>,
    /// An empty scheduler for the runner's model.
    pub scheduler: Scheduler,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// Rows of logits that are tokens.
    pub vocab: usize,
    /// The token that an encoder-decoder's text starts from. It counts as seen for the repetition penalty, and the
    /// prompt does not, as in transformers; without one the prompt counts.
    pub decoder_start: Option<u32>,
    /// Told of every step and token.
    pub observer: Box<dyn Observer>,
}

/// The engine. [`Engine::spawn`] starts it.
#[derive(Debug)]
pub struct Engine<R> {
    parts: EngineParts,
    runner: R,
    clients: HashMap<SequenceId, Client>,
    next_id: u64,
    /// When a drain fails what is left.
    drain: Option<Instant>,
    rate: DrainRate,
    plan: StepPlan,
    output: StepOutput,
    gone: Vec<(SequenceId, Option<SequenceError>)>,
}

impl<R: Runner + 'static> Engine<R> {
    /// Starts the engine on a thread of its own, which ends when a drain is done or every handle is gone.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn spawn(parts: EngineParts, runner: R) -> std::io::Result<JoinHandle<()>> {
        let engine = Self {
            parts,
            runner,
            clients: HashMap::new(),
            next_id: 0,
            drain: None,
            rate: DrainRate::new(Instant::now()),
            plan: StepPlan::default(),
            output: StepOutput::default(),
            gone: Vec::new(),
        };
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || engine.run())
    }

    fn run(mut self) {
        while self.receive() {
            let now = Instant::now();
            self.parts.observer.turn_began(now);
            self.let_go(now);
            self.parts.scheduler.plan_step(&mut self.plan);
            if !self.plan.is_empty() {
                self.step();
            } else if !self.clients.is_empty() {
                self.fail_stuck();
            }
            self.show_load();
            self.parts.observer.turn_ended();
        }
    }

    /// Takes what has arrived; waits for it when there is nothing to do. Returns whether to go on.
    fn receive(&mut self) -> bool {
        loop {
            let idle = self.clients.is_empty();
            debug_assert!(
                !idle || self.parts.scheduler.kv_usage() == 0.0,
                "nobody is here and blocks are held"
            );
            if idle && self.drain.is_some() {
                return false;
            }
            let command = if idle {
                self.parts.inbox.recv().map_err(|_| mpsc::TryRecvError::Disconnected)
            } else {
                self.parts.inbox.try_recv()
            };
            match command {
                Ok(Command::Submit(arrival)) => self.accept(*arrival),
                Ok(Command::Drain { deadline }) => self.drain = Some(deadline),
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return !idle,
            }
        }
    }

    fn accept(&mut self, arrival: Arrival) {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let Arrival { submission, arrived, events } = arrival;
        let seed = submission.sampling.seed.unwrap_or(id.0);
        let start = self.parts.decoder_start;
        let seen = start.as_ref().map_or(&submission.tokens[..], std::slice::from_ref);
        let sampler = Sampler::new(&submission.sampling, seed, seen, self.parts.vocab);
        let cost = submission.cost();
        let client = Client::new(
            events,
            (arrived, submission.deadline),
            (cost, submission.adapter.as_ref().map(|lease| lease.name().clone())),
            submission.stop,
            self.parts.tokenizer.clone(),
        );
        let added = self.parts.scheduler.add(NewSequence {
            id,
            tenant: submission.tenant,
            weight: submission.weight,
            adapter: submission.adapter,
            prompt: submission.tokens,
            given: submission.given,
            scoring: submission.scoring,
            sampler,
            guide: submission.grammar.map(Guide::new),
            max_tokens: submission.max_tokens as usize,
            min_tokens: submission.min_tokens as usize,
            priority: submission.priority,
        });
        match added {
            Ok(()) => {
                if let Some(adapter) = client.adapter() {
                    self.parts.observer.adapter_came(adapter);
                }
                self.clients.insert(id, client);
            }
            Err(error) => {
                self.parts.load.leave(1, cost);
                tracing::warn!(%error, "a sequence that the service should have refused");
                client.fail(SequenceError::Internal);
            }
        }
    }

    /// Ends the sequences whose client has gone, whose deadline has passed, or that outlive the drain.
    fn let_go(&mut self, now: Instant) {
        let drained = self.drain.is_some_and(|deadline| now >= deadline);
        let mut gone = std::mem::take(&mut self.gone);
        gone.extend(self.clients.iter().filter_map(|(&id, client)| {
            if client.is_gone() {
                Some((id, None))
            } else if drained {
                Some((id, Some(SequenceError::Draining)))
            } else {
                client.overdue(now).map(|waited| (id, Some(SequenceError::DeadlineExceeded(waited))))
            }
        }));
        for (id, error) in gone.drain(..) {
            self.end(id, |client| {
                if let Some(error) = error {
                    client.fail(error);
                }
            });
        }
        self.gone = gone;
    }

    fn step(&mut self) {
        let began = Instant::now();
        self.note_started(began);
        self.output.clear();
        let sequences = self.parts.scheduler.sequences();
        let outcome =
            catch_unwind(AssertUnwindSafe(|| self.runner.step(&self.plan, sequences, &mut self.output)));
        let report = self.report(began);
        match outcome {
            Ok(Ok(())) => {
                self.parts.scheduler.advance(&self.plan);
                self.hand_out();
            }
            Ok(Err(error)) => self.fail_step(&error),
            Err(_) => self.fail_all(self.plan.sequences().collect(), "the runner panicked"),
        }
        self.parts.observer.step(&report);
    }

    /// Sequences that this step is the first to work on leave the queue.
    fn note_started(&mut self, now: Instant) {
        for id in self.plan.sequences() {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            if client.start(now) {
                self.parts.load.start(client.cost());
                self.rate.count(client.cost());
                if let Some(adapter) = client.adapter() {
                    self.parts.observer.adapter_started(adapter);
                }
            }
        }
        self.rate.show(now, &self.parts.load);
    }

    /// What the step was, before its tokens are handed out.
    fn report(&mut self, began: Instant) -> StepReport {
        let scheduler = &mut self.parts.scheduler;
        let (waiting, running) = (scheduler.waiting(), scheduler.running());
        let (kv_usage, preemptions) = (scheduler.kv_usage(), scheduler.preemptions());
        let (prefix_queries, prefix_hits) = scheduler.prefix_rows();
        let cohort = self.plan.encode.as_ref();
        let encoded = cohort.map_or(&[][..], |encode| &encode.sequences);
        // A cohort's last step decodes it too: its sequences are in both lists.
        let both = cohort.filter(|encode| encode.last).map_or(0, |encode| encode.sequences.len());
        let fresh = if cohort.is_some_and(|encode| encode.layers.start == 0) { encoded } else { &[] };
        let sequences = scheduler.sequences();
        let prompt_rows: usize =
            fresh.iter().filter_map(|&id| sequences.get(id)).map(|held| held.prompt_rows()).sum();
        let decoder_rows: usize = self.plan.decode.iter().map(|decode| decode.rows.len()).sum();
        let prefills = self.plan.decode.iter().any(|decode| decode.rows.len() > 1 || !decode.samples);
        let phase = match (cohort, prefills) {
            (Some(_), _) => Phase::Encode,
            (None, true) => Phase::Prefill,
            (None, false) => Phase::Decode,
        };
        StepReport {
            duration: began.elapsed(),
            phase,
            sequences: encoded.len() + self.plan.decode.len() - both,
            rows: prompt_rows + decoder_rows,
            waiting,
            running,
            kv_usage,
            preemptions,
            prefix_queries,
            prefix_hits,
            residents: self.runner.resident_use(),
        }
    }

    fn show_load(&self) {
        let load = &self.parts.load;
        self.parts.observer.load(load.waiting(), load.running(), self.parts.scheduler.kv_usage());
    }
}
