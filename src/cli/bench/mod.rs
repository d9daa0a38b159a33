//! `dept bench`: load on a server, and how it bears it.
//!
//! Closed loop: N clients, each asks again when it has its answer; it finds the throughput. Open loop: requests come at
//! random times whatever the server does, and their latencies count from when they were due, not from when they could
//! be sent, so that a stall is felt by all whom it would have met ("coordinated omission").

mod arrivals;
mod client;
mod report;
mod sse;
mod stats;
mod workload;

use std::{
    cell::Cell,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::builder::BoolishValueParser;
use futures::{
    StreamExt,
    future::join_all,
    stream::{FuturesUnordered, iter},
};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Url;

use self::{
    arrivals::{Arrivals, tick},
    client::{Client, Sample},
    report::{Load, Report, Setting},
    workload::{Pick, Prompts, Workload},
};
use crate::{
    config::{count, duration},
    domain::AdapterRef,
};

/// Requests of a run that says neither --requests nor --duration.
const DEFAULT_REQUESTS: usize = 100;

/// The flags of `dept bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server's HTTP address
    #[arg(long, env = "DEPT_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = server)]
    server: Url,

    /// The adapters that requests name, with commas between; `-` is the bare model
    #[arg(
        long, value_name = "NAME,…", default_value = "-", value_delimiter = ',', allow_hyphen_values = true,
        value_parser = adapter
    )]
    adapters: Vec<String>,

    /// How a request's adapter is chosen
    #[arg(long, value_enum, value_name = "HOW", default_value = "round-robin")]
    pick: Pick,

    /// Closed loop: so many requests at any time
    #[arg(long, value_name = "N", default_value = "8", value_parser = count)]
    concurrency: usize,

    /// Open loop: so many requests a second on average, at random times, whether the server keeps up or not
    #[arg(long, value_name = "R", conflicts_with = "concurrency", value_parser = rate)]
    rate: Option<f64>,

    /// Stop after so many requests; 100 where no --duration is given either
    #[arg(long, value_name = "N", value_parser = count)]
    requests: Option<usize>,

    /// Send nothing new after this time (10s, 2m); with --requests, whichever comes first
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Requests before the run, which are not counted
    #[arg(long, value_name = "N", default_value_t = 8)]
    warmup: usize,

    /// Prompts, one a line, taken in turn. Without it, a built-in list
    #[arg(long, value_name = "FILE", conflicts_with = "prompt_tokens")]
    prompt_file: Option<PathBuf>,

    /// Prompts of so many random token ids, each another one
    #[arg(long, value_name = "N", value_parser = count)]
    prompt_tokens: Option<usize>,

    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 32)]
    max_tokens: u32,

    /// No end before this many tokens; as many as --max-tokens make all answers equally long
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_tokens: u32,

    /// Stream the answers; without, only whole requests can be timed
    #[arg(long, value_name = "BOOL", value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set, default_value = "true")]
    stream: bool,

    /// Give a request up after this time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    timeout: Duration,

    /// Fixes arrivals, random adapters and random prompts
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Write the numbers to this file too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Parses a server's address.
pub(super) fn server(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}: write http://HOST:PORT"))?;
    // Without the slash a path's last part would be replaced and not extended.
    let with_slash = Url::parse(&format!("{}/", text.trim_end_matches('/'))).unwrap_or_else(|_| url.clone());
    if url.scheme() == "http" && url.has_host() {
        Ok(with_slash)
    } else {
        Err("write http://HOST:PORT; TLS is not spoken here".to_owned())
    }
}

fn adapter(text: &str) -> Result<String, String> {
    if text == "-" {
        return Ok(text.to_owned());
    }
    text.parse::<AdapterRef>().map(|name| name.to_string()).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "write a number of requests a second, more than 0".to_owned())
}

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
        max_tokens: args.max_tokens,
        stream: args.stream,
        seed: args.seed,
    };
    Ok(Report::new(setting, &samples))
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
        let prompts = match (&args.prompt_file, args.prompt_tokens) {
            (Some(path), _) => Prompts::from_file(path)?,
            (None, Some(count)) => Prompts::Synthetic(count),
            (None, None) => Prompts::built_in(),
        };
        let workload = Workload {
            prompts,
            adapters: args.adapters.iter().map(|name| (name != "-").then(|| name.clone())).collect(),
            pick: args.pick,
            max_tokens: args.max_tokens,
            min_tokens: args.min_tokens,
            stream: args.stream,
            seed: args.seed,
        };
        let requests = match (args.requests, args.duration) {
            (Some(requests), _) => requests,
            (None, Some(_)) => usize::MAX,
            (None, None) => DEFAULT_REQUESTS,
        };
        Ok(Self {
            client: Client::new(args.server.clone(), args.timeout)?,
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
