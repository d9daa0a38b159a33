use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::rate::{Clock, Exceeded, Rate};

/// How much a tenant may have; what is absent is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// API requests a minute, and at once.
    pub requests: Option<(NonZeroU32, NonZeroU32)>,
    /// Prompt, soft-prompt and generated tokens a minute, and at once.
    pub tokens: Option<(NonZeroU32, NonZeroU32)>,
    /// Generations under way at once.
    pub concurrent: Option<NonZeroU32>,
}

/// Why a tenant must wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// Too many requests.
    #[error("this tenant may send {per_minute} requests a minute: retry in {wait:.1?}")]
    Requests {
        /// Its rate.
        per_minute: NonZeroU32,
        /// When there is room for one.
        wait: Duration,
    },
    /// Too many tokens.
    #[error(
        "this request may take {asked} tokens (prompts, soft prompts and max_tokens) and this tenant may take \
         {per_minute} a minute: retry in {wait:.1?}"
    )]
    Tokens {
        /// What the request may take.
        asked: u64,
        /// The tenant's rate.
        per_minute: NonZeroU32,
        /// When there is room for as many.
        wait: Duration,
    },
    /// More tokens than the tenant ever has at once.
    #[error(
        "this request may take {asked} tokens (prompts, soft prompts and max_tokens) and this tenant takes {burst} \
         at most: lower max_tokens, or send several requests"
    )]
    TooManyTokens {
        /// What the request may take.
        asked: u64,
        /// What the tenant has when it has used nothing.
        burst: NonZeroU32,
    },
    /// Too many adapters.
    #[error("this tenant has {limit} adapters and aliases, the most it may have: delete one first")]
    Adapters {
        /// The most.
        limit: usize,
    },
    /// Too many generations at once.
    #[error("this tenant has {limit} requests under way, the most it may have: retry when one has ended")]
    Concurrent {
        /// The most at once.
        limit: NonZeroU32,
    },
}

impl QuotaError {
    /// When a retry can help, where that is known; `None` also where it never can.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Requests { wait, .. } | Self::Tokens { wait, .. } => Some(*wait),
            Self::TooManyTokens { .. } | Self::Concurrent { .. } | Self::Adapters { .. } => None,
        }
    }
}

/// What a tenant has used of its limits.
#[derive(Debug)]
pub struct Quotas {
    limits: Limits,
    requests: Option<Rate>,
    tokens: Option<Rate>,
    running: Arc<AtomicU32>,
}

impl Quotas {
    /// Nothing used yet.
    pub fn new(limits: Limits) -> Self {
        Self::with_clock(limits, &Clock::Real(Instant::now()))
    }

    pub(super) fn with_clock(limits: Limits, clock: &Clock) -> Self {
        let rate = |limit: Option<(NonZeroU32, NonZeroU32)>| {
            limit.map(|(per_minute, burst)| Rate::new(per_minute, burst, clock.clone()))
        };
        Self { limits, requests: rate(limits.requests), tokens: rate(limits.tokens), running: Arc::default() }
    }

    /// The quotas of the same tenant under other limits. What is unchanged goes on as it is: a new key file is no new
    /// minute.
    pub(super) fn renewed(self: &Arc<Self>, limits: Limits) -> Arc<Self> {
        if self.limits == limits {
            return Arc::clone(self);
        }
        Arc::new(Self { running: Arc::clone(&self.running), ..Self::new(limits) })
    }

    /// Takes one request.
    ///
    /// # Errors
    /// When the tenant has sent too many.
    pub fn request(&self) -> Result<(), QuotaError> {
        let (Some(rate), Some((per_minute, _))) = (&self.requests, self.limits.requests) else {
            return Ok(());
        };
        rate.take(NonZeroU32::MIN).map_err(|exceeded| match exceeded {
            Exceeded::Wait(wait) => QuotaError::Requests { per_minute, wait },
            Exceeded::Never => unreachable!("a burst is at least 1"),
        })
    }

    /// Takes a place among those under way, and `tokens`, of which what is not spent comes back with the place.
    ///
    /// # Errors
    /// When the tenant has too much under way or has used too much. Nothing is then taken.
    pub fn begin(self: &Arc<Self>, tokens: u64) -> Result<Spending, QuotaError> {
        // The place first: if the tokens are refused, dropping it gives it back.
        let mut spending = self.place()?;
        let (Some(rate), Some((per_minute, burst))) = (&self.tokens, self.limits.tokens) else {
            return Ok(spending);
        };
        let Some(count) = NonZeroU32::new(u32::try_from(tokens).unwrap_or(u32::MAX)) else {
            return Ok(spending);
        };
        match rate.take(count) {
            Ok(()) => {
                spending.taken = tokens;
                Ok(spending)
            }
            Err(Exceeded::Wait(wait)) => Err(QuotaError::Tokens { asked: tokens, per_minute, wait }),
            Err(Exceeded::Never) => Err(QuotaError::TooManyTokens { asked: tokens, burst }),
        }
    }

    fn place(self: &Arc<Self>) -> Result<Spending, QuotaError> {
        let limit = self.limits.concurrent;
        let taken = self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, |running| {
            (limit.is_none_or(|limit| running < limit.get())).then_some(running + 1)
        });
        match (taken, limit) {
            (Err(_), Some(limit)) => Err(QuotaError::Concurrent { limit }),
            _ => Ok(Spending { quotas: Arc::clone(self), taken: 0, spent: 0 }),
        }
    }

    /// Generations under way.
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Acquire)
    }
}

/// One generation's place and tokens; dropping it gives the place back, and the tokens that were not spent.
#[derive(Debug)]
pub struct Spending {
    quotas: Arc<Quotas>,
    taken: u64,
    spent: u64,
}

impl Spending {
    /// Notes that so many of the tokens were used.
    pub fn spend(&mut self, tokens: u64) {
        self.spent += tokens;
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        self.quotas.running.fetch_sub(1, Ordering::AcqRel);
        if let Some(rate) = &self.quotas.tokens {
            rate.give_back(self.taken.saturating_sub(self.spent));
        }
    }
}
