//! What the requests ask: prompts, adapters, limits.

use std::path::Path;

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
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

/// Ids for synthetic prompts: ordinary pieces in any vocabulary, past the special ones.
const SYNTHETIC_IDS: std::ops::Range<u32> = 4..200;

/// How a request's adapter is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Pick {
    /// One after the other.
    #[default]
    RoundRobin,
    /// At random, by the seed.
    Random,
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Prompts {
    /// Texts, in turn.
    Texts(Vec<String>),
    /// This many token ids at random, other ones in each request.
    Synthetic(usize),
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
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("can't read --prompt-file '{}'", path.display()))?;
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        ensure!(!lines.is_empty(), "--prompt-file '{}' is empty: write a prompt a line", path.display());
        Ok(Self::Texts(lines))
    }
}

/// Writes request bodies.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub prompts: Prompts,
    /// At least one; `None` is the bare backbone.
    pub adapters: Vec<Option<String>>,
    pub pick: Pick,
    pub max_tokens: u32,
    pub min_tokens: u32,
    pub stream: bool,
    pub seed: u64,
}

impl Workload {
    /// The body of request `number`: the same for the same number and seed, whatever was asked before.
    pub(super) fn body(&self, number: usize) -> String {
        let mut rng = StdRng::seed_from_u64(self.seed.wrapping_add(number as u64));
        let index = match self.pick {
            Pick::RoundRobin => number % self.adapters.len(),
            Pick::Random => rng.random_range(0..self.adapters.len()),
        };
        // A prompt for each adapter in turn, so that equal counts of both don't tie one to the other.
        let round = number / self.adapters.len() + index;
        let prompt: Value = match &self.prompts {
            Prompts::Texts(texts) => json!(texts[round % texts.len()]),
            Prompts::Synthetic(count) => (0..*count).map(|_| rng.random_range(SYNTHETIC_IDS)).collect(),
        };
        json!({
            "adapter": self.adapters[index],
            "prompt": prompt,
            "max_tokens": self.max_tokens,
            "min_tokens": self.min_tokens,
            "stream": self.stream,
        })
        .to_string()
    }
}
