use std::path::PathBuf;

use clap::ValueEnum;

use crate::{
    cli::measure::By,
    config::{Dtype, EngineArgs, count},
    evaluation::Metric,
    training::Start,
};

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Method {
    /// A short soft prompt and a low-rank update of the token embeddings
    Dept,
    /// A soft prompt alone (prompt tuning)
    Pt,
}

/// What happens to a source of more than s tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TooLong {
    /// The run does not start; the message names the line
    Error,
    /// Its first tokens are dropped
    Left,
    /// Its last tokens are dropped, the end token kept
    Right,
}

/// Train an adapter in front of a frozen model. Run the same command again after an interruption: it goes on where it was.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) engine: EngineArgs,

    /// Examples, one JSON object a line: {"source": "…", "target": "…"}, or the fields of --task or --card with a "target"
    #[arg(long, value_name = "FILE.jsonl")]
    pub(super) data: PathBuf,

    /// The adapter's folder. The best adapter so far is always there whole; its `training/` has checkpoint and logs
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,

    /// What is trained
    #[arg(long, value_enum, default_value = "dept")]
    pub(super) method: Method,

    /// Rows m of the soft prompt; 0 trains the low-rank pair alone. More rows make every request slower
    #[arg(long, value_name = "M", default_value_t = 20)]
    pub(super) prompt_length: usize,

    /// Rank r of the low-rank pair. Without it, what a soft prompt of 100 rows has in parameters: (100 - m) d / (s + d)
    #[arg(long, value_name = "R")]
    pub(super) rank: Option<usize>,

    /// The longest source s in tokens: the adapter will take none that is longer
    #[arg(long, value_name = "S", default_value = "256", value_parser = count)]
    pub(super) max_length: usize,

    /// `lora_alpha`: the low-rank update is multiplied by alpha / sqrt(r)
    #[arg(long, value_name = "X", default_value_t = 8.0)]
    pub(super) alpha: f64,

    /// Highest learning rate of the soft prompt
    #[arg(long, value_name = "X", default_value_t = 0.3)]
    pub(super) lr_prompt: f64,

    /// Highest learning rate of the low-rank pair
    #[arg(long, value_name = "X", default_value_t = 5e-3)]
    pub(super) lr_lowrank: f64,

    /// Steps of the optimiser (AdamW)
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    pub(super) steps: usize,

    /// Steps over which the rates rise from 0, before they fall to 0. Without it, a tenth of the steps, 500 at most
    #[arg(long, value_name = "N")]
    pub(super) warmup: Option<u64>,

    /// Examples a batch. Texts are not padded, so memory goes by their tokens
    #[arg(long, value_name = "N", default_value = "32", value_parser = count)]
    pub(super) batch_size: usize,

    /// Batches whose gradients make one step
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    pub(super) accumulate: usize,

    /// Gradients longer than this are shortened to it; 0 leaves them
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(super) clip: f64,

    /// Fixes the order of examples and all that is drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u64,

    /// Examples to evaluate on; without them the last adapter is kept and its card has no score
    #[arg(long, value_name = "FILE.jsonl")]
    pub(super) eval_data: Option<PathBuf>,

    /// Evaluate every so many steps, and keep the best adapter. Without it, ten times in all
    #[arg(long, value_name = "N")]
    pub(super) eval_every: Option<u64>,

    /// How answers are found
    #[arg(long, value_enum, default_value = "generation")]
    pub(super) eval_by: By,

    /// Most tokens of a generated answer. Without it the card's, else 20
    #[arg(long, value_name = "N")]
    pub(super) max_tokens: Option<u32>,

    /// What is compared. Without it the task's usual one, else accuracy
    #[arg(long, value_enum)]
    pub(super) metric: Option<Metric>,

    /// Stop after so many evaluations in a row without a better one; 0 never does
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) patience: u64,

    /// Write a checkpoint every so many steps, beside those at evaluations
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(super) checkpoint_every: u64,

    /// A task of the table in docs/training.md: its template and labels (sst2, rte, boolq, squad, …)
    #[arg(long, value_name = "NAME", conflicts_with = "card")]
    pub(super) task: Option<String>,

    /// A card.toml with a template and labels of your own; its words go into the adapter's card
    #[arg(long, value_name = "FILE")]
    pub(super) card: Option<PathBuf>,

    /// Train on so many examples of each label only, drawn by --seed
    #[arg(long, value_name = "K")]
    pub(super) shots: Option<usize>,

    /// Where the soft prompt starts: text:WORDS (their embeddings, again and again), vocabulary (tokens drawn by --seed),
    /// random, or another adapter, by folder or name, whose low-rank pair is taken too
    #[arg(long, value_name = "ADAPTER|text:WORDS|vocabulary|random", default_value = "vocabulary")]
    pub(super) init_from: Start,

    /// What happens to a source of more than --max-length tokens, in training and evaluation
    #[arg(long, value_enum, default_value = "error")]
    pub(super) truncate: TooLong,

    /// How the frozen weights are held while training. f32 is exact; auto and fine train through the arithmetic that serves;
    /// i8 rounds floats to 8 bits, which takes a quarter of f32's memory
    #[arg(long, value_enum, value_name = "DTYPE", default_value = "f32")]
    pub(super) train_dtype: Dtype,

    /// Begin anew, whatever --out holds
    #[arg(long)]
    pub(super) restart: bool,
}
