//! `dept eval`: how good an adapter is, here or on a server.

use std::{fs, path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context, ensure};
use reqwest::Url;

use super::{
    bench::server,
    measure::{Answerer, By, Here, Question, There, command_line},
};
use crate::{
    adapter::Card,
    api::{Readiness, State},
    app::Resident,
    config::{EngineArgs, EngineConfig, LogFormat, Places},
    domain::OverLength,
    evaluation::{Metric, Report, page},
    telemetry::start_logging,
    training::{Example, Form, TaskTemplate, read_examples, read_journal},
};

/// Tokens of an answer where neither flag nor card says.
const MAX_TOKENS: u32 = 20;

/// Measure an adapter on examples: its metric with a 95 % interval, the majority baseline, and which labels it confuses.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    engine: EngineArgs,

    /// The adapter's folder, or its name; without it the bare model is measured
    #[arg(long, value_name = "NAME|DIR")]
    adapter: Option<String>,

    /// Examples, one JSON object a line, as for dept train; fields go into the template of the card, of --task or of --card
    #[arg(long, value_name = "FILE.jsonl")]
    data: PathBuf,

    /// What is measured. Without it the task's usual one, else accuracy
    #[arg(long, value_enum)]
    metric: Option<Metric>,

    /// How answers are found
    #[arg(long, value_enum, default_value = "generation")]
    by: By,

    /// A task of the table in docs/training.md, for an adapter without a card or for the bare model
    #[arg(long, value_name = "NAME", conflicts_with = "card")]
    task: Option<String>,

    /// A card.toml to read templates and labels from, in place of the adapter's
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,

    /// Most tokens of a generated answer. Without it the card's, else 20
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,

    /// Measure on the first so many examples
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Ask this running server, for an adapter that it holds
    #[arg(long, env = "DEPT_SERVER", value_name = "URL", value_parser = server)]
    server: Option<Url>,

    /// The API key to show the server
    #[arg(long, env = "DEPT_API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// Cut sources that are too long, at their end, instead of stopping
    #[arg(long)]
    truncate: bool,

    /// Write the report as one HTML page, with the curve of its training where the adapter's folder has the log
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,

    /// Print one JSON object, as a card's results have it, in place of the report
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    start_logging(LogFormat::Text, "warn")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = match &args.server {
        Some(server) => runtime.block_on(async {
            let there = There::new(server.clone(), args.api_key.as_deref(), args.adapter.clone())?;
            let card = there.card().await?;
            measure(args, card, Answerer::There(&there)).await
        })?,
        None => {
            let config = EngineConfig::new(args.engine.clone(), &Places::from_environment())?;
            runtime.block_on(async {
                let resident = Resident::start(config, Arc::default(), Readiness::default()).await?;
                resident.readiness().set(State::Ready);
                let measured = measure_here(args, &resident).await;
                resident.drain()(Instant::now());
                resident.ended().await;
                measured
            })?
        }
    };
    write_page(args, &report)?;
    let dataset = args.data.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned());
    if args.json {
        println!("{}", serde_json::to_string(&report.measurement(dataset, Some(command_line())))?);
    } else {
        print!("{report}");
    }
    Ok(())
}

async fn measure_here(args: &Args, resident: &Resident) -> anyhow::Result<Report> {
    let truncate = args.truncate.then_some(OverLength::Right);
    let here = Here::with_adapter(&resident.service, args.adapter.as_deref(), truncate).await?;
    let card = here.adapter.as_ref().map(|lease| lease.card().clone()).unwrap_or_default();
    measure(args, card, Answerer::Here(here)).await
}

async fn measure(args: &Args, held: Card, answerer: Answerer<'_>) -> anyhow::Result<Report> {
    let card = card(args, held)?;
    let mut examples: Vec<Example> = read_examples(&args.data, Form::of(&card))?;
    examples.truncate(args.limit.unwrap_or(usize::MAX));
    ensure!(!examples.is_empty(), "--limit 0 leaves nothing to measure on");
    let labels: Vec<String> = card.labels.keys().cloned().collect();
    ensure!(
        args.by == By::Generation || labels.len() >= 2,
        "--by likelihood chooses among labels: give --task or --card with labels"
    );
    let max_tokens = args.max_tokens.or(card.max_tokens).unwrap_or(MAX_TOKENS);
    let bar = indicatif::ProgressBar::new(examples.len() as u64);
    let question = Question { by: args.by, labels: &labels, max_tokens };
    let answers = answerer.answers(&examples, question, |done| bar.set_position(done as u64)).await?;
    bar.finish_and_clear();
    let usual =
        args.task.as_deref().and_then(TaskTemplate::named).and_then(|task| Metric::named(task.metric));
    Ok(Report::of(args.metric.or(usual).unwrap_or(Metric::Accuracy), &answers))
}

/// The card that templates and labels come from.
fn card(args: &Args, held: Card) -> anyhow::Result<Card> {
    if let Some(path) = &args.card {
        let bytes = fs::read(path).with_context(|| format!("can't read --card '{}'", path.display()))?;
        return Ok(Card::parse(&bytes)?);
    }
    match &args.task {
        None => Ok(held),
        Some(name) => {
            let task = TaskTemplate::named(name).with_context(|| format!("--task {name} is not known"))?;
            Ok(task.card())
        }
    }
}

fn write_page(args: &Args, report: &Report) -> anyhow::Result<()> {
    let Some(path) = &args.html else { return Ok(()) };
    let name = args.adapter.as_deref().unwrap_or("the bare model");
    let folder = PathBuf::from(name).join("training/log.jsonl");
    let journal = read_journal(&folder).unwrap_or_default();
    let title = format!("{name} on {}", args.data.display());
    fs::write(path, page(&title, report, &journal))
        .with_context(|| format!("can't write --html '{}'", path.display()))
}
