use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::builder::BoolishValueParser;
use reqwest::Url;

use super::{
    goodput::Slo,
    workload::{Mix, Pick, Prompts},
};
use crate::{
    config::{count, duration},
    domain::AdapterRef,
};

/// Steepest Zipf mix: the first adapter is named a thousand times as often as the second.
const MAX_EXPONENT: f64 = 10.0;

/// The flags of `dept bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server's HTTP address
    #[arg(long, env = "DEPT_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = server)]
    pub(super) server: Url,

    /// An API key, where the server asks for one
    #[arg(long, env = "DEPT_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(super) api_key: Option<String>,

    /// The adapters that requests name, with commas between; `-` is the bare model
    #[arg(
        long, value_name = "NAME,…", default_value = "-", value_delimiter = ',', allow_hyphen_values = true,
        value_parser = adapter
    )]
    pub(super) adapters: Vec<String>,

    /// How a request's adapter is chosen
    #[arg(long, value_enum, value_name = "HOW", default_value = "round-robin")]
    pub(super) pick: Pick,

    /// The s of --pick zipf: 0 is uniform, more is steeper
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = exponent)]
    pub(super) zipf_exponent: f64,

    /// Closed loop: so many requests at any time
    #[arg(long, value_name = "N", default_value = "8", value_parser = count)]
    pub(super) concurrency: usize,

    /// Open loop: so many requests a second on average, at random times, whether the server keeps up or not
    #[arg(long, value_name = "R", conflicts_with = "concurrency", value_parser = rate)]
    pub(super) rate: Option<f64>,

    /// Stop after so many requests; 100 where no --duration is given either
    #[arg(long, value_name = "N", value_parser = count)]
    pub(super) requests: Option<usize>,

    /// Send nothing new after this time (10s, 2m); with --requests, whichever comes first
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) duration: Option<Duration>,

    /// Requests before the run, which are not counted
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) warmup: usize,

    /// Prompts, one a line, taken in turn. Without it, a built-in list
    #[arg(long, value_name = "FILE", conflicts_with = "prompt_tokens")]
    pub(super) prompt_file: Option<PathBuf>,

    /// Prompts of so many random token ids, each another one; in another run too, with another --seed
    #[arg(long, value_name = "N", value_parser = count, conflicts_with = "prompt_lengths")]
    pub(super) prompt_tokens: Option<usize>,

    /// The same with lengths from a file: a number of tokens a line, taken in turn
    #[arg(long, value_name = "FILE", conflicts_with = "prompt_file")]
    pub(super) prompt_lengths: Option<PathBuf>,

    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(super) max_tokens: u32,

    /// No end before this many tokens; as many as --max-tokens make all answers equally long
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) min_tokens: u32,

    /// Exactly so many tokens an answer: N, or A-B to draw each one's number evenly from A to B
    #[arg(long, value_name = "N|A-B", value_parser = output_tokens, conflicts_with_all = ["max_tokens", "min_tokens"])]
    pub(super) output_tokens: Option<RangeInclusive<u32>>,

    /// Goodput: count the requests whose first token comes within this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) slo_ttft: Option<Duration>,

    /// Goodput: and whose tokens then come at most this time apart, on average over the answer
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) slo_itl: Option<Duration>,

    /// Goodput: and which are answered whole within this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) slo_e2e: Option<Duration>,

    /// Stream the answers; without, only whole requests can be timed
    #[arg(long, value_name = "BOOL", value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set, default_value = "true")]
    pub(super) stream: bool,

    /// Give a request up after this time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(super) timeout: Duration,

    /// Fixes arrivals, random adapters and random prompts
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u64,

    /// Write the numbers to this file too, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

impl Args {
    pub(super) fn prompts(&self) -> anyhow::Result<Prompts> {
        match (&self.prompt_file, &self.prompt_lengths, self.prompt_tokens) {
            (Some(path), _, _) => Prompts::from_file(path),
            (None, Some(path), _) => Prompts::from_lengths(path),
            (None, None, Some(count)) => Ok(Prompts::Synthetic(vec![count])),
            (None, None, None) => Ok(Prompts::built_in()),
        }
    }

    pub(super) fn mix(&self) -> Mix {
        let adapters = self.adapters.iter().map(|name| (name != "-").then(|| name.clone()));
        Mix::new(adapters.collect(), self.pick, self.zipf_exponent)
    }

    pub(super) fn slo(&self) -> Slo {
        Slo { ttft: self.slo_ttft, itl: self.slo_itl, e2e: self.slo_e2e }
    }
}

/// Parses a server's address.
pub(in crate::cli) fn server(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}: write http://HOST:PORT"))?;
    // Without the slash a path's last part would be replaced and not extended.
    let with_slash = Url::parse(&format!("{}/", text.trim_end_matches('/'))).unwrap_or_else(|_| url.clone());
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(with_slash)
    } else {
        Err("write http://HOST:PORT or https://HOST:PORT".to_owned())
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

fn exponent(text: &str) -> Result<f64, String> {
    let exponent = text.parse().ok().filter(|s| (0.0..=MAX_EXPONENT).contains(s));
    exponent.ok_or_else(|| format!("write a number from 0 to {MAX_EXPONENT}"))
}

fn output_tokens(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) if 1 <= least && least <= most => Ok(least..=most),
        _ => Err("write a number of tokens, or two as in 2-8, the smaller one first".to_owned()),
    }
}
