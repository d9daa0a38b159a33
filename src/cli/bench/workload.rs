//! What the requests ask: prompts, adapters, limits.

use std::{ops::RangeInclusive, path::Path};

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use serde_json::{Value, json};

/// Sentences of a length that people write, for runs that bring no prompts of their own.
const PROMPTS: [&str; 16] = [
    "sentence: a quiet film that earns every one of its tears .",
    "sentence: two hours of noise in search of a story .",
    "question: Which river flows through the capital of Hungary?",
    "sentence: the jokes are older than the actors , and they tell them worse .",
    "summarize: The council voted on Tuesday to close the old bridge for repairs until the spring, and to pay for a \
     ferry that will carry people and bicycles meanwhile.",
    "sentence: it is hard to imagine anyone leaving the theater without a smile .",
    "question: How many strings does a cello have?",
    "sentence: the camera loves her , and for once the script does too .",
    "question: is it legal to fish without a permit passage: In most of the country a permit is needed to fish in \
     rivers and lakes. Children under twelve, and owners on their own land, may fish without one.",
    "sentence: a sequel nobody asked for , made by people who did not want to .",
    "question: Who wrote the first dictionary of the English language?",
    "summarize: The harvest was late this year because of a cold June, yet growers expect to bring in as much fruit \
     as in the last two years, and of a better quality.",
    "sentence: slow , strange and completely sure of itself .",
    "question: What does a barometer measure?",
    "sentence: somewhere under the special effects a good idea is crying for help .",
    "sentence: funny when it wants to be and moving when you least expect it .",
];

/// Longest synthetic prompt: far over what any model here takes.
const MAX_LENGTH: usize = 1 << 20;

/// Between the first requests of two seeds: 2^64 over the golden ratio, so that many seeds stay far apart.
const SEED_STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Ids for synthetic prompts: ordinary pieces in any vocabulary, past the special ones.
const SYNTHETIC_IDS: std::ops::Range<u32> = 4..200;

/// How a request's adapter is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Pick {
    /// One after the other.
    #[default]
    RoundRobin,
    /// At random, all alike.
    #[value(alias = "random")]
    Uniform,
    /// At random, the first named most often: the k-th in proportion to 1 / k^s.
    Zipf,
}

/// Which adapters requests name, and how often each.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    /// At least one; `None` is the bare backbone.
    adapters: Vec<Option<String>>,
    pick: Pick,
    /// How often one of the first k is picked, for each k; the last is 1. For random picks.
    shares: Vec<f64>,
}

impl Mix {
    /// Of `adapters`, at least one; `exponent` is Zipf's s.
    pub(super) fn new(adapters: Vec<Option<String>>, pick: Pick, exponent: f64) -> Self {
        let exponent = if pick == Pick::Zipf { exponent } else { 0.0 };
        let weight = |k: usize| (k as f64).powf(-exponent);
        let total: f64 = (1..=adapters.len()).map(weight).sum();
        let shares = (1..=adapters.len()).scan(0.0, |sum, k| {
            *sum += weight(k) / total;
            Some(*sum)
        });
        Self { shares: shares.collect(), adapters, pick }
    }

    /// The index of the adapter of request `number`.
    fn pick(&self, number: usize, rng: &mut StdRng) -> usize {
        let last = self.adapters.len() - 1;
        match self.pick {
            Pick::RoundRobin => number % self.adapters.len(),
            Pick::Uniform | Pick::Zipf => {
                let drawn: f64 = rng.random();
                self.shares.partition_point(|&share| share <= drawn).min(last)
            }
        }
    }
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Prompts {
    /// Texts, in turn.
    Texts(Vec<String>),
    /// Token ids at random, other ones in each request: so many, the lengths in turn. At least one length.
    Synthetic(Vec<usize>),
}

impl Prompts {
    /// The built-in texts.
    pub(super) fn built_in() -> Self {
        Self::Texts(PROMPTS.map(str::to_owned).to_vec())
    }

    /// The lines of a file that are not empty.
    ///
    /// # Errors
    /// When it can't be read or has no such line.
    pub(super) fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text = read("--prompt-file", path)?;
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        ensure!(!lines.is_empty(), "--prompt-file '{}' is empty: write a prompt a line", path.display());
        Ok(Self::Texts(lines))
    }

    /// Synthetic prompts as long as the numbers in a file, one a line.
    ///
    /// # Errors
    /// When it can't be read, has no number, or a line is none.
    pub(super) fn from_lengths(path: &Path) -> anyhow::Result<Self> {
        let text = read("--prompt-lengths", path)?;
        let mut lengths = Vec::new();
        for (line, number) in text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty()) {
            let length = line.parse().ok().filter(|length| (1..=MAX_LENGTH).contains(length));
            lengths.push(length.with_context(|| {
                let file = path.display();
                format!("--prompt-lengths '{file}', line {number}: '{line}' is not a number from 1 to {MAX_LENGTH}")
            })?);
        }
        ensure!(
            !lengths.is_empty(),
            "--prompt-lengths '{}' is empty: write a number of tokens a line",
            path.display()
        );
        Ok(Self::Synthetic(lengths))
    }
}

fn read(flag: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("can't read {flag} '{}'", path.display()))
}

/// How long answers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// As the model ends them, within these numbers of tokens.
    Between(RangeInclusive<u32>),
    /// Exactly so many tokens each, drawn evenly from these.
    Drawn(RangeInclusive<u32>),
}

/// Writes request bodies.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub prompts: Prompts,
    pub mix: Mix,
    pub output: Output,
    pub stream: bool,
    pub seed: u64,
}

impl Workload {
    /// The body of request `number`: the same for the same number and seed, whatever was asked before.
    pub(super) fn body(&self, number: usize) -> String {
        // Far apart, so that runs of other seeds share no request: a server may remember a prompt.
        let stream = self.seed.wrapping_mul(SEED_STRIDE).wrapping_add(number as u64);
        let mut rng = StdRng::seed_from_u64(stream);
        // Before the adapter, so that mixes of one seed have answers of the same lengths.
        let (min_tokens, max_tokens) = match &self.output {
            Output::Between(range) => (*range.start(), *range.end()),
            Output::Drawn(range) => {
                let drawn = rng.random_range(range.clone());
                (drawn, drawn)
            }
        };
        let index = self.mix.pick(number, &mut rng);
        // A prompt for each adapter in turn, so that equal counts of both don't tie one to the other.
        let round = number / self.mix.adapters.len() + index;
        let prompt: Value = match &self.prompts {
            Prompts::Texts(texts) => json!(texts[round % texts.len()]),
            Prompts::Synthetic(lengths) => {
                let length = lengths[round % lengths.len()];
                (0..length).map(|_| rng.random_range(SYNTHETIC_IDS)).collect()
            }
        };
        json!({
            "adapter": self.mix.adapters[index],
            "prompt": prompt,
            "max_tokens": max_tokens,
            "min_tokens": min_tokens,
            "stream": self.stream,
        })
        .to_string()
    }
}
