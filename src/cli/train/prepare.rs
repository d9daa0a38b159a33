//! Everything that is settled before the first step: data, card, model, parameters, settings.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use sha2::{Digest, Sha256};

use super::args::{Args, Method, TooLong};
use crate::{
    adapter::{
        Card, LoadedAdapter,
        card::{Base, Trained},
        folder,
    },
    app::Trainable,
    cli::measure::{By, command_line},
    config::EngineConfig,
    domain::OverLength,
    evaluation::Metric,
    tokenizer::{Tokenizer, TruncateSide},
    training::{
        self, AdapterShape, Backbone, Example, Form, Output, Parameters, Settings, Start, TASKS,
        TaskTemplate, Tokenised, TrainError, few_shot, read_examples,
    },
};

/// Tokens of an answer where nobody says.
const MAX_TOKENS: u32 = 20;
/// The rows of the plain soft prompt whose parameters are the budget.
const BUDGET_ROWS: usize = 100;

/// A run that could begin.
pub(super) struct Prepared {
    pub backbone: Backbone,
    pub examples: Vec<Tokenised>,
    pub evaluation: Option<Evaluation>,
    pub parameters: Parameters,
    pub settings: Settings,
    pub output: Output,
    pub card: Card,
    pub truncate: Option<OverLength>,
    longest_answer: usize,
}

/// What the adapter is judged by.
pub(super) struct Evaluation {
    pub examples: Vec<Example>,
    pub dataset: String,
    pub metric: Metric,
    pub by: By,
    pub max_tokens: u32,
}

impl Prepared {
    /// The answers that the card knows.
    pub fn answers(&self) -> Vec<String> {
        self.card.labels.keys().cloned().collect()
    }

    /// Rows of the longest sequence.
    pub fn rows(&self) -> usize {
        let shape = &self.parameters.shape;
        shape.prompt_length + shape.max_length + self.longest_answer
    }

    /// Says what will be trained.
    pub fn announce(&self, args: &Args) {
        let shape = &self.parameters.shape;
        eprintln!(
            "{}: m = {}, r = {}, s = {}, {} parameters; {} examples, {} steps of {}",
            args.out.display(),
            shape.prompt_length,
            shape.rank,
            shape.max_length,
            shape.parameters(),
            self.examples.len(),
            self.settings.steps,
            self.settings.batch_size * self.settings.accumulate
        );
    }
}

pub(super) fn prepare(args: &Args, config: &EngineConfig) -> anyhow::Result<Prepared> {
    check(args)?;
    let card = card(args)?;
    let form = Form::of(&card);
    let mut raw = read_examples(&args.data, form)?;
    if let Some(shots) = args.shots {
        raw = few_shot(raw, shots, args.seed, form.labels.is_some())?;
    }
    let evaluation = evaluation(args, &card)?;
    let model = Trainable::open(config)?;
    let tokens = Tokens { model: &model, args };
    let examples = tokens.all(&raw, &args.data)?;
    if let Some(evaluation) = &evaluation {
        // What would stop the evaluation is said before the training.
        tokens.all(&evaluation.examples, args.eval_data.as_deref().unwrap_or(&args.data))?;
    }
    let longest_target = examples.iter().map(|one| one.target.len()).max().unwrap_or(0);
    let m = args.prompt_length;
    let generated = evaluation.as_ref().map_or(0, |evaluation| evaluation.max_tokens as usize);
    let longest_answer = longest_target.max(generated);
    let (rows, plus) = (m + args.max_length + longest_answer, " and the longest answer");
    if let Some(most) = model.most_rows.filter(|&most| most < rows) {
        return Err(TrainError::NoRoom { rows: most, plus, needed: rows }.into());
    }
    let (fingerprint, tokenizer) = (model.fingerprint(), model.tokenizer.clone());
    let backbone = model.load(args.train_dtype, m + args.max_length, longest_target + 1)?;
    let shape = shape(args, backbone.hidden())?;
    let other = other_adapter(args, config)?;
    let other = other.as_ref().map(|adapter| &adapter.weights);
    let parameters = training::start(shape, &args.init_from, args.seed, (&backbone, &tokenizer), other)?;
    let base = Base { name: Some(config.model_name.clone()), fingerprint: Some(fingerprint.clone()) };
    let output = Output {
        folder: args.out.clone(),
        task: backbone.task(),
        base_model: config.model_name.clone(),
        layers_and_heads: backbone.layers_and_heads(),
        init_text: match &args.init_from {
            Start::Text(text) => Some(text.clone()),
            Start::Vocabulary | Start::Random | Start::Adapter(_) => None,
        },
    };
    let truncate = match args.truncate {
        TooLong::Error => None,
        TooLong::Left => Some(OverLength::Left),
        TooLong::Right => Some(OverLength::Right),
    };
    Ok(Prepared {
        settings: settings(args, &shape, fingerprint)?,
        card: Card {
            base: Some(base),
            training: Some(Trained { command: Some(command_line()), ..Trained::default() }),
            results: Vec::new(),
            over_length: truncate.or(card.over_length),
            ..card
        },
        backbone,
        examples,
        evaluation,
        parameters,
        output,
        truncate,
        longest_answer,
    })
}

/// What no data could make right.
fn check(args: &Args) -> Result<(), TrainError> {
    let positive = |flag, value: f64| match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(TrainError::Setting { flag, problem: format!("{value} is not a number from 0 on") }),
    };
    positive("--lr-prompt", args.lr_prompt)?;
    positive("--lr-lowrank", args.lr_lowrank)?;
    positive("--clip", args.clip)?;
    positive("--alpha", args.alpha)?;
    if args.method == Method::Pt && args.rank.is_some_and(|rank| rank > 0) {
        let problem = "prompt tuning has no rank: leave it out, or take --method dept".to_owned();
        return Err(TrainError::Setting { flag: "--rank", problem });
    }
    if args.shots == Some(0) {
        return Err(TrainError::Setting { flag: "--shots", problem: "0 leaves no example".to_owned() });
    }
    Ok(())
}

fn card(args: &Args) -> anyhow::Result<Card> {
    if let Some(path) = &args.card {
        let bytes = fs::read(path).with_context(|| format!("can't read --card '{}'", path.display()))?;
        return Ok(Card::parse(&bytes)?);
    }
    let Some(name) = &args.task else { return Ok(Card::default()) };
    let task = TaskTemplate::named(name).with_context(|| {
        let known: Vec<_> = TASKS.iter().map(|task| task.name).collect();
        format!("--task {name}: the known tasks are {}; for another one write a --card", known.join(", "))
    })?;
    Ok(task.card())
}

fn evaluation(args: &Args, card: &Card) -> anyhow::Result<Option<Evaluation>> {
    let Some(path) = &args.eval_data else { return Ok(None) };
    if args.eval_by == By::Likelihood && card.labels.len() < 2 {
        let problem =
            "likelihood chooses among the card's labels: give --task or --card with labels".to_owned();
        return Err(TrainError::Setting { flag: "--eval-by", problem }.into());
    }
    let usual =
        args.task.as_deref().and_then(TaskTemplate::named).and_then(|task| Metric::named(task.metric));
    let dataset = path.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned());
    Ok(Some(Evaluation {
        examples: read_examples(path, Form::of(card))?,
        dataset,
        metric: args.metric.or(usual).unwrap_or(Metric::Accuracy),
        by: args.eval_by,
        max_tokens: args.max_tokens.or(card.max_tokens).unwrap_or(MAX_TOKENS),
    }))
}

fn shape(args: &Args, hidden: usize) -> Result<AdapterShape, TrainError> {
    let (m, s) = (args.prompt_length, args.max_length);
    let budget = BUDGET_ROWS.saturating_sub(m) * hidden / (s + hidden);
    let rank = match args.method {
        Method::Pt => 0,
        Method::Dept => args.rank.unwrap_or(budget),
    };
    if m == 0 && rank == 0 {
        return Err(TrainError::Nothing);
    }
    Ok(AdapterShape { prompt_length: m, rank, max_length: s, hidden, alpha: args.alpha })
}

/// The adapter that --init-from names, by folder or by name under the adapters' folder.
fn other_adapter(args: &Args, config: &EngineConfig) -> anyhow::Result<Option<LoadedAdapter>> {
    let Start::Adapter(named) = &args.init_from else { return Ok(None) };
    let under = config.adapters.as_ref().and_then(|place| place.folder()).map(|root| root.join(named));
    let folder = [Some(named.clone()), under].into_iter().flatten().find(|path| path.is_dir());
    let folder: PathBuf = folder.with_context(|| {
        format!("--init-from {}: no such folder or adapter; a text is text:WORDS", named.display())
    })?;
    Ok(Some(folder::load(&folder)?))
}

fn settings(args: &Args, shape: &AdapterShape, fingerprint: String) -> anyhow::Result<Settings> {
    let steps = args.steps as u64;
    let digest = |path: &Path| -> anyhow::Result<String> {
        let bytes = fs::read(path).with_context(|| format!("can't read '{}'", path.display()))?;
        Ok(Sha256::digest(&bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    };
    let mut inputs = vec![fingerprint, digest(&args.data)?];
    inputs.extend(args.eval_data.as_deref().map(digest).transpose()?);
    inputs.extend(args.card.as_deref().map(digest).transpose()?);
    inputs.push(format!("{:?} {:?} {:?} {:?}", args.task, args.shots, args.truncate, args.metric));
    Ok(Settings {
        prompt_length: shape.prompt_length,
        rank: shape.rank,
        max_length: shape.max_length,
        alpha: shape.alpha,
        lr_prompt: args.lr_prompt,
        lr_lowrank: args.lr_lowrank,
        steps,
        warmup: args.warmup.unwrap_or((steps / 10).min(500)),
        batch_size: args.batch_size,
        accumulate: args.accumulate,
        clip: args.clip,
        seed: args.seed,
        eval_every: args.eval_every.unwrap_or_else(|| (steps / 10).max(1)),
        checkpoint_every: args.checkpoint_every,
        patience: args.patience,
        init: format!("{:?}", args.init_from),
        dtype: format!("{:?}", args.train_dtype),
        inputs,
    })
}

/// From texts to ids that fit.
struct Tokens<'a> {
    model: &'a Trainable,
    args: &'a Args,
}

impl Tokens<'_> {
    fn all(&self, examples: &[Example], path: &Path) -> anyhow::Result<Vec<Tokenised>> {
        examples.iter().map(|example| self.one(example, path)).collect()
    }

    fn one(&self, example: &Example, path: &Path) -> anyhow::Result<Tokenised> {
        let tokenizer: &Tokenizer = &self.model.tokenizer;
        let mut source = tokenizer.encode(&example.source)?;
        let limit = self.args.max_length;
        if source.len() > limit {
            source = match self.args.truncate {
                TooLong::Left => tokenizer.truncate(source, limit, TruncateSide::Left),
                TooLong::Right => tokenizer.truncate(source, limit, TruncateSide::Right),
                TooLong::Error => {
                    let advice = "raise --max-length, or cut with --truncate right";
                    let (path, line, found) = (path.to_owned(), example.line, source.len());
                    return Err(
                        TrainError::TooLong { path, line, what: "source", found, limit, advice }.into()
                    );
                }
            };
        }
        // A T5's own form of a text ends with the end token; another model's answer goes on behind its source.
        let mut target = match self.model.is_seq2seq() {
            true => tokenizer.encode(example.target())?,
            false => tokenizer.encode_bare(example.target())?,
        };
        if target.last() != self.model.eos.as_ref() {
            target.extend(self.model.eos);
        }
        Ok(Tokenised { source, target })
    }
}
