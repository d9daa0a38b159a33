//! `dept bench`: load on a server, and how it bears it.
//!
//! Closed loop: N clients, each asks again when it has its answer; it finds the throughput. Open loop: requests come at
//! random times whatever the server does, and their latencies count from when they were due, not from when they could
//! be sent, so that a stall is felt by all whom it would have met ("coordinated omission").

mod args;
mod arrivals;
mod client;
mod goodput;
mod report;
mod sse;
mod stats;
mod workload;

use std::{
    cell::Cell,
    io::{self, Write},
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures::{
    StreamExt,
    future::join_all,
    stream::{FuturesUnordered, iter},
};
use indicatif::{ProgressBar, ProgressStyle};

pub use self::args::Args;
pub(super) use self::args::server;
use self::{
    arrivals::{Arrivals, tick},
    client::{Client, Sample},
    report::{Load, Report, Setting},
    workload::{Output, Workload},
};

/// Requests of a run that says neither --requests nor --duration.
const DEFAULT_REQUESTS: usize = 100;

/// Loads the server, prints the table, and fails if every request did.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    // One thread: the client takes as little as it can from a server on the same machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(measure(&args))?;
    publish(&report, &mut io::stdout().lock(), args.json.as_deref())
}

/// Writes the table to `out` and the JSON to its file.
fn publish(report: &Report, out: &mut impl Write, json: Option<&Path>) -> anyhow::Result<()> {
    out.write_all(report.table().as_bytes())?;
    if let Some(path) = json {
        let json = serde_json::to_string_pretty(report)? + "\n";
        std::fs::write(path, json).with_context(|| format!("can't write --json '{}'", path.display()))?;
    }
    if report.requests.ok == 0 {
        bail!("none of {} requests succeeded", report.requests.failures());
    }
    Ok(())
}

async fn measure(args: &Args) -> anyhow::Result<Report> {
    let run = Run::new(args)?;
    run.client.check_ready().await?;
    let load = match args.rate {
        Some(rate) => Load::Open { rate },
        None => Load::Closed { concurrency: args.concurrency },
    };
    run.warm_up(args.warmup, args.concurrency).await;
    let samples = match load {
        Load::Closed { concurrency } => run.closed(concurrency).await,
        Load::Open { rate } => run.open(rate).await?,
    };
    run.progress.finish_and_clear();
    let setting = Setting {
        server: args.server.to_string(),
        load,
        adapters: args.adapters.clone(),
        pick: args.pick,
        max_tokens: args.output_tokens.as_ref().map_or(args.max_tokens, |drawn| *drawn.end()),
        stream: args.stream,
        seed: args.seed,
    };
    Ok(Report::new(setting, args.slo(), &samples))
}

/// A run that can begin.
struct Run {
    client: Client,
    workload: Workload,
    /// Most requests; no limit where only a duration was said.
    requests: usize,
    duration: Duration,
    progress: ProgressBar,
}

impl Run {
    fn new(args: &Args) -> anyhow::Result<Self> {
        ensure!(
            args.min_tokens <= args.max_tokens,
            "--min-tokens {} is more than --max-tokens {}",
            args.min_tokens,
            args.max_tokens
        );
        ensure!(
            args.stream || (args.slo_ttft.is_none() && args.slo_itl.is_none()),
            "--slo-ttft and --slo-itl need --stream true: without it nobody sees when a token comes"
        );
        let workload = Workload {
            prompts: args.prompts()?,
            mix: args.mix(),
            output: match &args.output_tokens {
                Some(range) => Output::Drawn(range.clone()),
                None => Output::Between(args.min_tokens..=args.max_tokens),
            },
            stream: args.stream,
            seed: args.seed,
        };
        let requests = match (args.requests, args.duration) {
            (Some(requests), _) => requests,
            (None, Some(_)) => usize::MAX,
            (None, None) => DEFAULT_REQUESTS,
        };
        Ok(Self {
            client: Client::new(args.server.clone(), args.api_key.as_deref(), args.timeout)?,
            workload,
            requests,
            duration: args.duration.unwrap_or(Duration::MAX),
            progress: progress(requests),
        })
    }

    /// Sends requests whose times nobody looks at, and whose synthetic prompts do not come again.
    async fn warm_up(&self, requests: usize, concurrency: usize) {
        let epoch = Instant::now();
        let ask = |number| self.client.ask(self.workload.body(usize::MAX - number), epoch, Duration::ZERO);
        iter(0..requests).map(ask).buffer_unordered(concurrency).for_each(|_| async {}).await;
    }

    /// `concurrency` clients, each with one request at a time.
    async fn closed(&self, concurrency: usize) -> Vec<Sample> {
        let epoch = Instant::now();
        let next = Cell::new(0);
        let client = |_| async {
            let mut samples = Vec::new();
            while next.get() < self.requests && epoch.elapsed() < self.duration {
                let number = next.replace(next.get() + 1);
                let body = self.workload.body(number);
                samples.push(self.client.ask(body, epoch, epoch.elapsed()).await);
                self.progress.inc(1);
            }
            samples
        };
        join_all((0..concurrency).map(client)).await.concat()
    }

    /// Requests at the times of a Poisson process.
    async fn open(&self, rate: f64) -> anyhow::Result<Vec<Sample>> {
        let epoch = Instant::now();
        let limit = self.duration;
        let due = Arrivals::new(rate, self.workload.seed).take(self.requests);
        let due = due.take_while(move |&due| due < limit);
        let (sender, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        // Dropped with this future, which stops the clock.
        let (_running, stop) = mpsc::channel();
        std::thread::Builder::new()
            .name("arrivals".into())
            .spawn(move || tick(epoch, due, &sender, &stop))?;
        let mut flying = FuturesUnordered::new();
        let mut samples = Vec::new();
        loop {
            tokio::select! {
                Some(due) = arrivals.recv() => {
                    let body = self.workload.body(samples.len() + flying.len());
                    flying.push(self.client.ask(body, epoch, due));
                }
                Some(sample) = flying.next() => {
                    samples.push(sample);
                    self.progress.inc(1);
                }
                else => return Ok(samples),
            }
        }
    }
}

/// A bar on standard error where that is a terminal, else nothing.
fn progress(requests: usize) -> ProgressBar {
    if requests == usize::MAX {
        return ProgressBar::new_spinner();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {per_sec}, {eta} left");
    ProgressBar::new(requests as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests;
