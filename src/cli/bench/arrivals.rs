//! When the requests of an open loop are due: a Poisson process, the same one for the same seed.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::mpsc::UnboundedSender;

/// The times since the start at which requests are due, for ever.
#[derive(Debug)]
pub(super) struct Arrivals {
    rng: StdRng,
    /// Requests a second.
    rate: f64,
    /// Seconds at which the last one was due.
    last: f64,
}

impl Arrivals {
    /// Arrivals at `rate` a second on average, which is more than 0 and finite.
    pub(super) fn new(rate: f64, seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), rate, last: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // 1 - u is in (0, 1], so the gap is finite; exponential gaps make the process memoryless.
        let uniform: f64 = self.rng.random();
        self.last -= (1.0 - uniform).ln() / self.rate;
        Duration::try_from_secs_f64(self.last).ok()
    }
}

/// Sends each time when it is due, until `stop` is dropped or nobody listens. On a thread of its own: an async timer
/// counts whole milliseconds, which is longer than a small model's answer.
pub(super) fn tick(
    epoch: Instant,
    due: impl Iterator<Item = Duration>,
    sender: &UnboundedSender<Duration>,
    stop: &Receiver<()>,
) {
    for due in due {
        let left = (epoch + due).saturating_duration_since(Instant::now());
        if !left.is_zero() && stop.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        if sender.send(due).is_err() {
            return;
        }
    }
}
