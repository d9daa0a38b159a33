use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use super::SubmitError;

/// How long the drain rate is measured before it counts.
const WINDOW: Duration = Duration::from_millis(500);

/// Longest time that a refused client is told to stay away.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Sequences.
    pub sequences: usize,
    /// Their prompt tokens and the tokens that they may generate, together.
    pub tokens: usize,
}

/// The engine's load, written by its thread and by submitters, read by anyone.
#[derive(Debug, Default)]
pub struct Load {
    waiting: AtomicUsize,
    waiting_tokens: AtomicUsize,
    running: AtomicUsize,
    pub(super) draining: AtomicBool,
    /// Tokens of sequences that leave the queue for the model, a second; 0 before any did. Bits of an f64.
    drain_rate: AtomicU64,
}

impl Load {
    /// Sequences submitted and not yet started.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Sequences started and not yet ended.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether there is room for anything: what is made ready for a full queue is made for nothing.
    pub(super) fn room(&self, limits: QueueLimits) -> Result<(), SubmitError> {
        let (waiting, tokens) = (self.waiting(), self.waiting_tokens.load(Ordering::Acquire));
        // An empty queue takes one of any size.
        let is_full = waiting >= limits.sequences || (waiting > 0 && tokens >= limits.tokens);
        if is_full { Err(self.overloaded()) } else { Ok(()) }
    }

    fn overloaded(&self) -> SubmitError {
        let (waiting, tokens) = (self.waiting(), self.waiting_tokens.load(Ordering::Acquire));
        SubmitError::Overloaded { waiting, tokens, retry_in: self.retry_in() }
    }

    /// `sequences` of `tokens` together enter the queue, or none of them does.
    pub(super) fn enter(
        &self,
        sequences: usize,
        tokens: usize,
        limits: QueueLimits,
    ) -> Result<(), SubmitError> {
        let room = |limit: usize, more: usize| {
            move |held: usize| held.checked_add(more).filter(|&after| after <= limit)
        };
        self.waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room(limits.sequences, sequences))
            .map_err(|_| self.overloaded())?;
        // An empty queue takes one of any size: what could never wait could never run.
        let limit = if sequences == 1 && self.waiting() == 1 { usize::MAX } else { limits.tokens };
        let entered =
            self.waiting_tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, room(limit, tokens));
        entered.map(drop).map_err(|_| {
            self.waiting.fetch_sub(sequences, Ordering::AcqRel);
            self.overloaded()
        })
    }

    /// `sequences` of `tokens` together leave the queue.
    pub(crate) fn leave(&self, sequences: usize, tokens: usize) {
        self.waiting.fetch_sub(sequences, Ordering::AcqRel);
        self.waiting_tokens.fetch_sub(tokens, Ordering::AcqRel);
    }

    /// A sequence of `tokens` leaves the queue and runs.
    pub(super) fn start(&self, tokens: usize) {
        self.leave(1, tokens);
        self.running.fetch_add(1, Ordering::AcqRel);
    }

    /// A sequence that ran has ended.
    pub(super) fn end(&self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }

    /// When the queue, at the pace that it has shown, will have taken in what waits now; a second where that is not known.
    fn retry_in(&self) -> Duration {
        let rate = f64::from_bits(self.drain_rate.load(Ordering::Relaxed));
        let tokens = self.waiting_tokens.load(Ordering::Acquire) as f64;
        let wait = Duration::try_from_secs_f64(tokens / rate).unwrap_or(Duration::ZERO);
        wait.clamp(Duration::from_secs(1), LONGEST_WAIT)
    }
}

/// Measures how fast the queue empties while there is one: the engine's own part of [`Load`].
#[derive(Debug)]
pub(super) struct DrainRate {
    since: Instant,
    tokens: usize,
    rate: f64,
}

impl DrainRate {
    pub fn new(now: Instant) -> Self {
        Self { since: now, tokens: 0, rate: 0.0 }
    }

    /// Tokens have left the queue for the model.
    pub fn count(&mut self, tokens: usize) {
        self.tokens += tokens;
    }

    /// Shows the pace, averaged over the last few windows in which someone waited.
    pub fn show(&mut self, now: Instant, load: &Load) {
        let passed = now - self.since;
        if passed < WINDOW {
            return;
        }
        if load.waiting() > 0 {
            let fresh = self.tokens as f64 / passed.as_secs_f64();
            self.rate = if self.rate == 0.0 { fresh } else { (self.rate + fresh) / 2.0 };
            load.drain_rate.store(self.rate.to_bits(), Ordering::Relaxed);
        }
        (self.since, self.tokens) = (now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits = QueueLimits { sequences: 3, tokens: 100 };

    fn refused(load: &Load, sequences: usize, tokens: usize) -> (usize, usize, u64) {
        let Err(SubmitError::Overloaded { waiting, tokens, retry_in }) =
            load.enter(sequences, tokens, LIMITS)
        else {
            panic!("there is room")
        };
        (waiting, tokens, retry_in.as_secs())
    }

    #[test]
    fn a_queue_is_full_by_sequences_or_by_tokens_and_refusals_take_nothing() {
        let load = Load::default();
        load.enter(1, 60, LIMITS).unwrap();
        assert_eq!(refused(&load, 1, 41), (1, 60, 1));
        load.enter(1, 40, LIMITS).unwrap();
        load.enter(1, 0, LIMITS).unwrap();
        assert_eq!(refused(&load, 1, 0), (3, 100, 1));
        assert_eq!(refused(&load, usize::MAX, usize::MAX), (3, 100, 1));
        load.start(60);
        assert_eq!((load.waiting(), load.running()), (2, 1));
        load.enter(1, 60, LIMITS).unwrap();
    }

    #[test]
    fn an_empty_queue_takes_what_is_larger_than_its_limit() {
        let load = Load::default();
        load.enter(1, 1000, LIMITS).unwrap();
        assert_eq!(refused(&load, 1, 1), (1, 1000, 1));
        load.leave(1, 1000);
        assert_eq!(refused(&load, 2, 101), (0, 0, 1));
    }

    #[test]
    fn who_is_refused_is_told_when_the_queue_will_have_moved() {
        let (load, start) = (Load::default(), Instant::now());
        let mut rate = DrainRate::new(start);
        load.enter(3, 90, LIMITS).unwrap();
        rate.count(20);
        rate.show(start + WINDOW / 2, &load);
        assert_eq!(refused(&load, 1, 1).2, 1, "not known yet");
        rate.show(start + Duration::from_secs(2), &load);
        assert_eq!(refused(&load, 1, 1).2, 9, "10 tokens a second");
        rate.count(1);
        rate.show(start + Duration::from_secs(12), &load);
        assert_eq!(refused(&load, 1, 1).2, 17, "the mean of 10 and 0.1");
        for seconds in [30, 60, 90, 120, 150, 180, 210] {
            rate.show(start + Duration::from_secs(seconds), &load);
        }
        assert_eq!(refused(&load, 1, 1).2, 60);
    }
}
