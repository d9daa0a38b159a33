//! A rate by the generic cell rate algorithm, whose unused part can be given back.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter, clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};

/// The time that rates go by, since their start.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The process's own.
    Real(Instant),
    /// A test's.
    #[cfg(test)]
    Hand(clock::FakeRelativeClock),
}

impl clock::Clock for Clock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        match self {
            Self::Real(start) => start.elapsed(),
            #[cfg(test)]
            Self::Hand(hand) => clock::Clock::now(hand).into(),
        }
    }
}

/// The moment at which the bucket will be full again, in nanoseconds of the clock; 0 before the first use.
#[derive(Debug, Clone, Default)]
struct FullAt(Arc<AtomicU64>);

impl StateStore for FullAt {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let (value, after) = decide((before > 0).then_some(before.into()))?;
            match self.0.compare_exchange_weak(before, after.into(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(value),
                Err(now) => before = now,
            }
        }
    }
}

/// So many a minute, of which so many at once.
#[derive(Debug)]
pub struct Rate {
    limiter: RateLimiter<NotKeyed, FullAt, Clock, NoOpMiddleware<Duration>>,
    clock: Clock,
    full_at: FullAt,
    /// Nanoseconds in which one comes back.
    interval: u64,
}

/// Why a rate was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// There will be enough after this time.
    Wait(Duration),
    /// There are never so many at once.
    Never,
}

impl Rate {
    /// `per_minute`, at most `burst` at once, to begin with a full bucket.
    pub fn new(per_minute: NonZeroU32, burst: NonZeroU32, clock: Clock) -> Self {
        let quota = Quota::per_minute(per_minute).allow_burst(burst);
        let full_at = FullAt::default();
        let limiter = RateLimiter::new(quota, full_at.clone(), clock.clone());
        let interval = u64::try_from(quota.replenish_interval().as_nanos()).unwrap_or(u64::MAX);
        Self { limiter, clock, full_at, interval }
    }

    /// Takes `count`, all or none.
    pub fn take(&self, count: NonZeroU32) -> Result<(), Exceeded> {
        match self.limiter.check_n(count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                Err(Exceeded::Wait(not_until.wait_time_from(clock::Clock::now(&self.clock))))
            }
            Err(_) => Err(Exceeded::Never),
        }
    }

    /// Gives back `count` of what was taken. The bucket is never fuller than full: a moment that has passed counts
    /// as now, and 0 as a bucket never used.
    pub fn give_back(&self, count: u64) {
        let time = count.saturating_mul(self.interval);
        let earlier = |full_at: u64| Some(full_at.saturating_sub(time));
        // The closure never refuses.
        let _ = self.full_at.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, earlier);
    }
}
