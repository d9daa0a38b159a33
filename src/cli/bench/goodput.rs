//! How much of the load was answered well: requests that kept what was promised of their latency.

use std::time::Duration;

use serde::Serialize;

use super::client::{Answer, Sample};

/// What is promised of a request; what is absent promises nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Slo {
    /// From when it was due to its first token.
    pub ttft: Option<Duration>,
    /// Between two of its tokens, on average.
    pub itl: Option<Duration>,
    /// From when it was due to its end.
    pub e2e: Option<Duration>,
}

/// The requests that kept the promise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Goodput {
    pub slo_ttft_ms: Option<f64>,
    pub slo_itl_ms: Option<f64>,
    pub slo_e2e_ms: Option<f64>,
    pub requests: usize,
    /// Of all requests, those that failed among them.
    pub share: f64,
    pub requests_per_s: f64,
}

impl Goodput {
    /// Of a run of this duration; `None` where nothing is promised.
    pub(super) fn of(slo: Slo, samples: &[Sample], duration: Duration) -> Option<Self> {
        if slo == Slo::default() {
            return None;
        }
        let requests = samples.iter().filter(|sample| slo.is_kept(sample)).count();
        let ms = |promise: Option<Duration>| promise.map(|promise| promise.as_secs_f64() * 1e3);
        let rate = requests as f64 / duration.as_secs_f64();
        Some(Self {
            slo_ttft_ms: ms(slo.ttft),
            slo_itl_ms: ms(slo.itl),
            slo_e2e_ms: ms(slo.e2e),
            requests,
            share: requests as f64 / samples.len().max(1) as f64,
            requests_per_s: if duration.is_zero() { 0.0 } else { rate },
        })
    }

    /// What was promised, in words.
    pub(super) fn promise(&self) -> String {
        let named = [
            ("first token", self.slo_ttft_ms),
            ("between tokens", self.slo_itl_ms),
            ("whole request", self.slo_e2e_ms),
        ];
        let parts = named.iter().filter_map(|(name, ms)| Some(format!("{name} <= {} ms", (*ms)?)));
        parts.collect::<Vec<_>>().join(", ")
    }
}

impl Slo {
    /// Whether a request succeeded in time. An answer without a token is as late as its end.
    fn is_kept(&self, sample: &Sample) -> bool {
        let Ok(Answer { tokens, .. }) = &sample.outcome else { return false };
        let within =
            |took: Duration, promise: Option<Duration>| promise.is_none_or(|promise| took <= promise);
        let e2e = sample.ended.saturating_sub(sample.due);
        let ttft = tokens.first().map_or(e2e, |first| first.saturating_sub(sample.due));
        let itl = match tokens[..] {
            [first, .., last] => (last - first) / (tokens.len() - 1) as u32,
            _ => Duration::ZERO,
        };
        within(ttft, self.ttft) && within(itl, self.itl) && within(e2e, self.e2e)
    }
}
