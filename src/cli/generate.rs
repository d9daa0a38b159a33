//! `dept generate`: one answer, without a server.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::Context;
use futures::StreamExt;

use crate::{
    adapter::{AdapterLease, folder},
    api::{ApiError, DEFAULT_MAX_TOKENS, Readiness, Service, State},
    app::Resident,
    config::{EngineArgs, EngineConfig, LogFormat, Places},
    domain::{
        Choices, GenerateRequest, Grammar, OverLength, Pattern, Prompt, RawSampling, SamplingParams, Schema,
        TenantId, TokenEvent,
    },
    telemetry::start_logging,
    tenancy::Principal,
};

/// The flags of `dept generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    engine: EngineArgs,

    /// The text that the model reads
    #[arg(long, value_name = "TEXT", required_unless_present = "input", conflicts_with = "input")]
    prompt: Option<String>,

    /// A field of the adapter's template, as name=text; once for each field
    #[arg(long, value_name = "NAME=TEXT", value_parser = field, requires = "adapter")]
    input: Vec<(String, String)>,

    /// An adapter's name under the adapters' root, or its folder. Without it the bare model answers
    #[arg(long, value_name = "NAME|DIR")]
    adapter: Option<String>,

    /// Most tokens to generate; the card's number, else 20
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,

    /// 0 takes the most probable token, more draws more freely
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    temperature: f64,

    /// Fixes the draws
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// The text is one that this regular expression matches as a whole
    #[arg(long, value_name = "REGEX", group = "grammar")]
    regex: Option<String>,

    /// The text is one of these; once for each text
    #[arg(long, value_name = "TEXT", group = "grammar")]
    choice: Vec<String>,

    /// The text is JSON that the schema in this file describes
    #[arg(long, value_name = "FILE", group = "grammar")]
    json_schema: Option<PathBuf>,

    /// Cut a prompt that is too long, at its end, instead of refusing it
    #[arg(long)]
    truncate: bool,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write name=text")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Prints the answer as it comes.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    start_logging(LogFormat::Text, "warn")?;
    let config = EngineConfig::new(args.engine.clone(), &Places::from_environment())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let resident = Resident::start(config, Arc::default(), Readiness::default()).await?;
        resident.readiness().set(State::Ready);
        let answered = answer(&args, &resident).await;
        resident.drain()(Instant::now());
        resident.ended().await;
        answered
    })
}

async fn answer(args: &Args, resident: &Resident) -> anyhow::Result<()> {
    let (service, principal) = (&resident.service, Principal::anonymous(0));
    let said = |error: ApiError| anyhow::anyhow!("{}", error.message);
    let lease = match args.adapter.as_deref() {
        Some(folder) if Path::new(folder).is_dir() => Some(leased(Path::new(folder), service)?),
        Some(name) => service.adapter(&principal, Some(&name.parse()?), None).await.map_err(said)?,
        None => None,
    };
    let mut accepted = service.generate(&principal, &args.request()?, lease).map_err(said)?;
    let mut out = io::stdout().lock();
    while let Some((_, event)) = accepted.events.next().await {
        match event {
            TokenEvent::Given(_) => {}
            TokenEvent::Token(token) => out.write_all(token.text.as_bytes())?,
            TokenEvent::Finished(completion) => writeln!(out, "{}", completion.tail)?,
            TokenEvent::Failed(error, _) => return Err(error.into()),
        }
        out.flush()?;
    }
    Ok(())
}

impl Args {
    fn request(&self) -> anyhow::Result<GenerateRequest> {
        let inputs = || Prompt::Inputs(self.input.iter().cloned().collect::<BTreeMap<_, _>>());
        let raw = RawSampling { temperature: self.temperature, seed: self.seed, ..RawSampling::default() };
        Ok(GenerateRequest {
            tenant: TenantId::default_tenant(),
            adapter: None,
            prompts: vec![self.prompt.clone().map_or_else(inputs, Prompt::Text)],
            max_tokens: self.max_tokens,
            usual_tokens: Some(DEFAULT_MAX_TOKENS),
            scores_prompts: false,
            min_tokens: 0,
            sampling: SamplingParams::new(raw)?,
            stop: Vec::new(),
            grammar: self.grammar()?,
            n: 1,
            truncate: self.truncate.then_some(OverLength::Right),
            priority: 0,
            timeout: None,
        })
    }
}

impl Args {
    /// What the text must be. The flags exclude each other.
    fn grammar(&self) -> anyhow::Result<Option<Grammar>> {
        if let Some(regex) = &self.regex {
            return Ok(Some(Grammar::Regex(Pattern::new(regex).context("--regex")?)));
        }
        if let Some(path) = &self.json_schema {
            let named = || format!("--json-schema {}", path.display());
            let schema = std::fs::read_to_string(path).with_context(named)?;
            return Ok(Some(Grammar::JsonSchema(Schema::new(&schema).with_context(named)?)));
        }
        if self.choice.is_empty() {
            return Ok(None);
        }
        Ok(Some(Grammar::Choice(Choices::new(self.choice.clone()).context("--choice")?)))
    }
}

/// The adapter in a folder, under the folder's name.
fn leased(folder: &Path, service: &Service) -> anyhow::Result<AdapterLease> {
    let whole = folder.canonicalize()?;
    let last =
        whole.file_name().and_then(|name| name.to_str()).context("the adapter's folder has no name")?;
    let generation = folder::load(&whole)?.into_generation(last.parse()?);
    service.catalogue.backbone().check(&generation)?;
    Ok(AdapterLease::new(Arc::new(generation)))
}
