//! What a run measured: a table for people, JSON for machines.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use serde::Serialize;

use super::{
    client::Sample,
    goodput::{Goodput, Slo},
    stats::Summary,
    workload::Pick,
};

/// What was run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Setting {
    pub server: String,
    #[serde(flatten)]
    pub load: Load,
    pub adapters: Vec<String>,
    pub pick: Pick,
    pub max_tokens: u32,
    pub stream: bool,
    pub seed: u64,
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "loop", rename_all = "snake_case")]
pub(super) enum Load {
    /// So many clients, each of which asks again when it has its answer.
    Closed {
        /// Clients.
        concurrency: usize,
    },
    /// At random times that do not depend on the answers.
    Open {
        /// Requests a second on average.
        rate: f64,
    },
}

/// The numbers of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    pub dept: &'static str,
    #[serde(flatten)]
    pub setting: Setting,
    pub requests: Requests,
    /// From the start to the last answer.
    pub duration_s: f64,
    /// Of the requests that succeeded, as are all that follow.
    pub requests_per_s: f64,
    pub output_tokens_per_s: f64,
    /// Tokens of prompts and soft-prompt rows.
    pub input_tokens_per_s: f64,
    pub prompt_tokens: usize,
    pub virtual_tokens: usize,
    pub completion_tokens: usize,
    /// From when a request was due to its first token.
    pub ttft_ms: Option<Summary>,
    /// Between two tokens of an answer.
    pub itl_ms: Option<Summary>,
    /// From when a request was due to the end of its answer.
    pub e2e_ms: Option<Summary>,
    /// How late requests were sent: the client's own fault. Open loop only.
    pub late_ms: Option<Summary>,
    /// Where something was promised.
    pub goodput: Option<Goodput>,
}

/// Requests by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Requests {
    pub ok: usize,
    /// By what went wrong.
    pub failed: BTreeMap<String, usize>,
}

impl Requests {
    /// All that failed.
    pub(super) fn failures(&self) -> usize {
        self.failed.values().sum()
    }
}

impl Report {
    /// The numbers in `samples`, measured by `slo`.
    pub(super) fn new(setting: Setting, slo: Slo, samples: &[Sample]) -> Self {
        let mut requests = Requests::default();
        let (mut ttft, mut itl, mut e2e) = (Vec::new(), Vec::new(), Vec::new());
        let (mut prompt_tokens, mut virtual_tokens, mut completion_tokens) = (0, 0, 0);
        for sample in samples {
            let answer = match &sample.outcome {
                Ok(answer) => answer,
                Err(failure) => {
                    *requests.failed.entry(failure.clone()).or_default() += 1;
                    continue;
                }
            };
            requests.ok += 1;
            prompt_tokens += answer.usage.prompt_tokens;
            virtual_tokens += answer.usage.virtual_tokens;
            completion_tokens += answer.usage.completion_tokens;
            ttft.extend(answer.tokens.first().map(|first| first.saturating_sub(sample.due)));
            itl.extend(answer.tokens.windows(2).map(|pair| pair[1].saturating_sub(pair[0])));
            e2e.push(sample.ended.saturating_sub(sample.due));
        }
        let duration = samples.iter().map(|sample| sample.ended).max().unwrap_or_default();
        let rate =
            |count: usize| if duration.is_zero() { 0.0 } else { count as f64 / duration.as_secs_f64() };
        let late = |sample: &Sample| sample.sent.saturating_sub(sample.due);
        let late = matches!(setting.load, Load::Open { .. }).then(|| samples.iter().map(late).collect());
        Self {
            dept: env!("CARGO_PKG_VERSION"),
            duration_s: duration.as_secs_f64(),
            requests_per_s: rate(requests.ok),
            output_tokens_per_s: rate(completion_tokens),
            input_tokens_per_s: rate(prompt_tokens + virtual_tokens),
            requests,
            setting,
            prompt_tokens,
            virtual_tokens,
            completion_tokens,
            ttft_ms: Summary::of(ttft),
            itl_ms: Summary::of(itl),
            e2e_ms: Summary::of(e2e),
            late_ms: late.and_then(|late: Vec<Duration>| Summary::of(late)),
            goodput: Goodput::of(slo, samples, duration),
        }
    }

    /// Two blocks: what was done and how fast, then the latencies.
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.rates(&mut out).and_then(|()| self.latencies(&mut out));
        out
    }

    fn rates(&self, out: &mut String) -> fmt::Result {
        let mut row = |key: &str, value: String| writeln!(out, "{key:<18}{value}");
        let Setting { server, load, adapters, seed, .. } = &self.setting;
        row("server", server.clone())?;
        row(
            "load",
            match load {
                Load::Closed { concurrency } => format!("closed loop, {concurrency} at once"),
                Load::Open { rate } => format!("open loop, {rate} a second (Poisson, seed {seed})"),
            },
        )?;
        row("adapters", adapters.join(", "))?;
        row("requests", format!("{} ok, {} failed", self.requests.ok, self.requests.failures()))?;
        for (failure, count) in &self.requests.failed {
            row("", format!("{count} x {failure}"))?;
        }
        row("duration", format!("{:.2} s", self.duration_s))?;
        row("requests/s", format!("{:.1}", self.requests_per_s))?;
        row("output tokens/s", format!("{:.1}", self.output_tokens_per_s))?;
        let (text, soft) = (self.prompt_tokens, self.virtual_tokens);
        let input = format!("{:.1}  ({text} of prompts, {soft} soft-prompt rows)", self.input_tokens_per_s);
        row("input tokens/s", input)?;
        let Some(goodput) = &self.goodput else { return Ok(()) };
        let Goodput { requests, share, requests_per_s, .. } = goodput;
        let promise = goodput.promise();
        row(
            "goodput",
            format!("{requests_per_s:.1} requests/s: {requests} ({:.1} %) with {promise}", 1e2 * share),
        )
    }

    fn latencies(&self, out: &mut String) -> fmt::Result {
        if self.e2e_ms.is_none() {
            return Ok(());
        }
        writeln!(
            out,
            "\n{:<22}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "milliseconds", "mean", "p50", "p90", "p99", "max"
        )?;
        let mut row = |key: &str, summary: &Option<Summary>| match summary {
            None => Ok(()),
            Some(Summary { mean, p50, p90, p99, max, .. }) => {
                writeln!(out, "{key:<22}{mean:>10.2}{p50:>10.2}{p90:>10.2}{p99:>10.2}{max:>10.2}")
            }
        };
        row("time to first token", &self.ttft_ms)?;
        row("between tokens", &self.itl_ms)?;
        row("whole request", &self.e2e_ms)?;
        row("sent late", &self.late_ms)
    }
}
