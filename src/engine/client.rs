use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::{
    domain::{
        AdapterName, Completion, FinishReason, GeneratedToken, SequenceError, Timings, TokenEvent, Usage,
    },
    sampling::Sampled,
    scheduler::Sequence,
    tokenizer::{Detokenizer, StopStrings, Tokenizer},
};

/// The client's side of a running sequence: its text and its clock.
#[derive(Debug)]
pub(super) struct Client {
    events: UnboundedSender<TokenEvent>,
    detokenizer: Detokenizer,
    stops: StopStrings,
    arrived: Instant,
    deadline: Option<Instant>,
    cost: usize,
    adapter: Option<AdapterName>,
    started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    /// The end token, where its log-probability was asked for.
    end: Option<GeneratedToken>,
}

impl Client {
    pub fn new(
        events: UnboundedSender<TokenEvent>,
        (arrived, deadline): (Instant, Option<Instant>),
        (cost, adapter): (usize, Option<AdapterName>),
        stop: Vec<String>,
        tokenizer: Tokenizer,
    ) -> Self {
        Self {
            events,
            detokenizer: Detokenizer::new(tokenizer),
            stops: StopStrings::new(stop),
            arrived,
            deadline,
            cost,
            adapter,
            started: None,
            first_token: None,
            last_token: None,
            end: None,
        }
    }

    /// What it counts in the queue.
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// The adapter that it runs with.
    pub fn adapter(&self) -> Option<&AdapterName> {
        self.adapter.as_ref()
    }

    /// Whether nobody listens any more.
    pub fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// How long the client was given, when that is over.
    pub fn overdue(&self, now: Instant) -> Option<Duration> {
        self.deadline.filter(|&deadline| now >= deadline).map(|deadline| deadline - self.arrived)
    }

    /// Notes that a step works on the sequence; returns whether it is the first.
    pub fn start(&mut self, now: Instant) -> bool {
        let first = self.started.is_none();
        self.started.get_or_insert(now);
        first
    }

    /// Whether a step has worked on the sequence.
    pub fn has_started(&self) -> bool {
        self.started.is_some()
    }

    /// Notes that a token has come. Returns whether it is the first, and the time since the one before it (or since
    /// the submission).
    pub fn see(&mut self, now: Instant) -> (bool, Duration) {
        let first = self.first_token.is_none();
        self.first_token.get_or_insert(now);
        let before = self.last_token.replace(now).unwrap_or(self.arrived);
        (first, now - before)
    }

    /// Sends a token with the text that it completes. Returns whether a stop string was met.
    pub fn send(&mut self, sampled: Sampled) -> bool {
        let piece = self.detokenizer.push(sampled.token).unwrap_or_default();
        let released = self.stops.push(&piece);
        let Sampled { token: id, logprob, top } = sampled;
        self.deliver(TokenEvent::Token(GeneratedToken { id, text: released.text, logprob, top }));
        released.stopped
    }

    /// Notes the end token, which is no part of the text.
    pub fn note_end(&mut self, Sampled { token: id, logprob, top }: Sampled) {
        self.end = logprob.map(|_| GeneratedToken { id, text: String::new(), logprob, top });
    }

    /// The end: releases text that was held back.
    pub fn complete(&mut self, mut reason: FinishReason, usage: Usage) -> Completion {
        let mut tail = String::new();
        if let Some(piece) = self.detokenizer.flush() {
            let released = self.stops.push(&piece);
            tail.push_str(&released.text);
            if released.stopped {
                reason = FinishReason::StopSequence;
            }
        }
        if reason != FinishReason::StopSequence {
            tail.push_str(&self.stops.flush());
        }
        Completion { reason, tail, end: self.end.take(), usage, timings: self.timings() }
    }

    fn timings(&self) -> Timings {
        let started = self.started.unwrap_or(self.arrived);
        let first = self.first_token.unwrap_or(started);
        let last = self.last_token.unwrap_or(first);
        Timings { queue: started - self.arrived, prefill: first - started, decode: last - first }
    }

    /// Tells the client that the sequence failed; the time until now counts to what it was at.
    pub fn fail(&self, error: SequenceError) {
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let first = self.first_token.unwrap_or(now);
        let queue = started.saturating_duration_since(self.arrived);
        let prefill = first.saturating_duration_since(started);
        let timings = Timings { queue, prefill, decode: now.saturating_duration_since(first) };
        self.deliver(TokenEvent::Failed(error, timings));
    }

    /// Sends an event. A client that has gone is noticed before the next step.
    pub fn deliver(&self, event: TokenEvent) {
        let _ = self.events.send(event);
    }
}

/// The token counts of a sequence so far.
pub(super) fn usage(sequence: &Sequence) -> Usage {
    Usage {
        prompt_tokens: sequence.request.prompt.len(),
        virtual_tokens: sequence.virtual_tokens(),
        completion_tokens: sequence.generated(),
        cached_tokens: sequence.cached_tokens(),
    }
}
