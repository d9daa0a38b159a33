//! `dept adapter`: look at adapters without a server, and take them to one and back.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    adapter::{BackboneShape, Card, Generation, LoadedAdapter, Task, Update, tensor_file::TensorInfo},
    backbones::weights::Weights,
    domain::{AdapterName, AdapterRef},
};
use remote::Client;

mod files;
mod remote;

/// Arguments of `dept adapter`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check an adapter and print what is in it
    Inspect {
        /// The folder with adapter_config.json and adapter_model.safetensors or .bin, or a .zip or .tar.gz of it
        #[arg(value_name = "DIR|ARCHIVE")]
        source: PathBuf,
        /// Print JSON in place of the table
        #[arg(long)]
        json: bool,
        /// Serve this task of a multitask prompt, counted from 0 [default: the config's dept_task_id]
        #[arg(long, value_name = "N")]
        task_id: Option<usize>,
    },
    /// Check an adapter; print one line and exit with 0, or the error and exit with 1
    Validate {
        /// The folder with adapter_config.json and adapter_model.safetensors or .bin, or a .zip or .tar.gz of it
        #[arg(value_name = "DIR|ARCHIVE")]
        source: PathBuf,
        /// Check too that it fits the model in this folder: its width and kind, and, where the card states the
        /// fingerprint that it was trained on and the weights are there, that too
        #[arg(long, value_name = "PATH")]
        model: Option<PathBuf>,
    },
    /// Write an adapter anew as a folder with adapter_model.safetensors, whatever form it has
    Convert {
        /// The adapter: a folder, .zip or .tar.gz
        #[arg(value_name = "DIR|ARCHIVE")]
        source: PathBuf,
        /// The folder to write, which must not be there yet
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Keep this task of a multitask prompt, counted from 0 [default: the config's dept_task_id]
        #[arg(long, value_name = "N")]
        task_id: Option<usize>,
    },
    /// Upload an adapter to a server, where the next request that names it gets it
    Push {
        /// The adapter: a folder, .zip or .tar.gz
        #[arg(value_name = "DIR|ARCHIVE")]
        source: PathBuf,
        #[command(flatten)]
        push: remote::PushArgs,
        #[command(flatten)]
        server: remote::ServerArgs,
    },
    /// Download an adapter from a server into a new folder
    Pull {
        /// Its name, or name@version
        name: AdapterRef,
        /// The folder to write, which must not be there yet [default: the adapter's name]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        #[command(flatten)]
        server: remote::ServerArgs,
    },
    /// List the adapters on a server
    List {
        /// Print JSON in place of the table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: remote::ServerArgs,
    },
    /// Delete an adapter on a server, with all its versions
    Rm {
        /// Its name; name@version deletes that version alone
        name: AdapterRef,
        /// Where it is
        #[arg(long, value_enum, default_value = "home")]
        namespace: remote::Namespace,
        #[command(flatten)]
        server: remote::ServerArgs,
    },
}

/// Runs `dept adapter`.
///
/// # Errors
/// When there is no sound adapter, it does not fit the model, or the server refuses.
pub fn run(args: Args) -> anyhow::Result<()> {
    let report = match args.command {
        Command::Inspect { source, json, task_id } => inspect(&source, json, task_id)?,
        Command::Validate { source, model } => validate(&source, model.as_deref())?,
        Command::Convert { source, folder, task_id } => files::convert(&source, &folder, task_id)?,
        remote => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask(remote))?
        }
    };
    io::stdout().lock().write_all(report.as_bytes()).context("the report can't be written")
}

async fn ask(command: Command) -> anyhow::Result<String> {
    match command {
        Command::Push { source, push, server } => Client::new(&server)?.push(&source, &push).await,
        Command::Pull { name, to, server } => Client::new(&server)?.pull(&name, to.as_deref()).await,
        Command::List { json, server } => Client::new(&server)?.list(json).await,
        Command::Rm { name, namespace, server } => Client::new(&server)?.remove(&name, namespace).await,
        Command::Inspect { .. } | Command::Validate { .. } | Command::Convert { .. } => {
            bail!("this needs no server")
        }
    }
}

fn inspect(path: &Path, as_json: bool, task_id: Option<usize>) -> anyhow::Result<String> {
    let loaded = LoadedAdapter::from_bytes(files::read(path)?, task_id)?;
    let (file, tensors) = (loaded.format.file_name(), loaded.tensors.clone());
    let generation = named(path, loaded)?;
    if as_json {
        let text = serde_json::to_string_pretty(&object(&generation, file, &tensors))?;
        return Ok(text + "\n");
    }
    Ok(table(&generation, file, &tensors)?)
}

fn validate(path: &Path, model: Option<&Path>) -> anyhow::Result<String> {
    let generation = named(path, LoadedAdapter::from_bytes(files::read(path)?, None)?)?;
    let fits = match model {
        None => String::new(),
        Some(model) => {
            let mut shape = backbone_shape(model)?;
            // Reads all of the weights, so only where a card has something to compare.
            if generation.card().base_fingerprint().is_some() {
                shape.fingerprint = Weights::open(model).ok().map(|weights| weights.fingerprint().to_owned());
            }
            shape.check(&generation)?;
            format!(", fits {}", shape.name)
        }
    };
    Ok(format!("ok: {} {}{fits}\n", generation.name(), generation.version()))
}

/// Named by its folder, as a server would do it; a folder of no legal name can still be looked at.
fn named(path: &Path, loaded: LoadedAdapter) -> anyhow::Result<Generation> {
    let name: AdapterName = files::name_of(path).or_else(|_| "unnamed".parse())?;
    Ok(loaded.into_generation(name))
}

/// Width and kind of the model in a Hugging Face folder.
fn backbone_shape(model: &Path) -> anyhow::Result<BackboneShape> {
    let path = model.join("config.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("'{}' can't be read: --model takes a model folder", path.display()))?;
    let config: Value =
        serde_json::from_str(&text).with_context(|| format!("'{}' is not JSON", path.display()))?;
    let hidden = ["d_model", "hidden_size", "n_embd"].iter().find_map(|key| config.get(key)?.as_u64());
    let Some(hidden) = hidden.and_then(|hidden| usize::try_from(hidden).ok()) else {
        bail!("'{}' states none of d_model, hidden_size and n_embd", path.display());
    };
    let encoder_decoder = match config.get("is_encoder_decoder").and_then(Value::as_bool) {
        Some(stated) => stated,
        None => matches!(config.get("model_type").and_then(Value::as_str), Some("t5" | "mt5" | "umt5")),
    };
    let name = model.canonicalize()?.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let task = if encoder_decoder { Task::Seq2SeqLm } else { Task::CausalLm };
    Ok(BackboneShape { hidden, task, name, fingerprint: None })
}

/// The adapter object of the API, with what the file holds.
fn object(generation: &Generation, file: &str, tensors: &[(String, TensorInfo)]) -> Value {
    let (manifest, weights) = (generation.manifest(), generation.weights());
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, info)| json!({ "name": name, "dtype": info.dtype.as_str(), "shape": info.shape }))
        .collect();
    json!({
        "name": generation.name().as_str(),
        "version": generation.version().to_string(),
        "method": manifest.method.as_str(),
        "task": manifest.task.as_str(),
        "prompt_length": weights.prompt_length(),
        "rank": weights.rank(),
        "max_length": weights.max_length(),
        "hidden": weights.hidden(),
        "alpha": manifest.alpha(),
        "parameters": weights.parameters(),
        "bytes": weights.bytes(),
        "base_model": manifest.base_model,
        "file": { "name": file, "tensors": tensors },
        "card": generation.card(),
    })
}

fn table(
    generation: &Generation,
    file: &str,
    tensors: &[(String, TensorInfo)],
) -> Result<String, std::fmt::Error> {
    let (manifest, weights) = (generation.manifest(), generation.weights());
    let mut out = String::new();
    let mut row = |key: &str, value: String| writeln!(out, "{key:<16}{value}");
    row("name", generation.name().to_string())?;
    row("version", generation.version().to_string())?;
    row("method", manifest.method.to_string())?;
    row("task", manifest.task.to_string())?;
    row("base model", manifest.base_model.clone().unwrap_or_else(|| "not stated".into()))?;
    row("prompt length", format!("m = {}", weights.prompt_length()))?;
    match weights.update() {
        Update::LowRank(pair) => {
            row("rank", format!("r = {}", pair.rank()))?;
            row("max length", format!("s = {} tokens", pair.max_length()))?;
            row("scale", format!("{} = lora_alpha / sqrt(r)", pair.scale()))?;
        }
        Update::Adept(network) => {
            row("rank", format!("r = {}", network.rank()))?;
            row("max length", "unlimited: the update does not depend on the position".into())?;
        }
        Update::None => row("rank", "r = 0, no low-rank pair".into())?,
    }
    row("hidden size", format!("d = {}", weights.hidden()))?;
    row("parameters", weights.parameters().to_string())?;
    row("bytes", format!("{} in memory", weights.bytes()))?;
    row("file", file.to_owned())?;
    for (name, info) in tensors {
        row("", format!("{name}  {} {:?}", info.dtype.as_str(), info.shape))?;
    }
    card_rows(generation.card(), &mut row)?;
    Ok(out)
}

fn card_rows(
    card: &Card,
    row: &mut impl FnMut(&str, String) -> std::fmt::Result,
) -> Result<(), std::fmt::Error> {
    if *card == Card::default() {
        return row("card", "none".into());
    }
    let texts = [
        ("description", card.description.clone()),
        ("template", card.template.as_ref().map(ToString::to_string)),
        ("max tokens", card.max_tokens.map(|n| n.to_string())),
        ("over length", card.over_length.map(|policy| format!("{policy:?}").to_lowercase())),
        ("license", card.license.clone()),
        ("fingerprint", card.base_fingerprint().map(str::to_owned)),
    ];
    for (key, text) in texts {
        text.map_or(Ok(()), |text| row(key, text))?;
    }
    for (output, label) in &card.labels {
        row("label", format!("{output} -> {label}"))?;
    }
    if let Some(training) = &card.training {
        let steps = training.steps.map(|steps| format!("{steps} steps"));
        let minutes = training.minutes.map(|minutes| format!("{minutes} minutes"));
        let told: Vec<String> = [steps, minutes, training.date.clone()].into_iter().flatten().collect();
        row("training", told.join(", "))?;
        training.command.as_ref().map_or(Ok(()), |command| row("", command.clone()))?;
    }
    for result in &card.results {
        let split = result.split.as_ref().map(|split| format!("[{split}]")).unwrap_or_default();
        let beside = [("AUC", result.auc), ("majority", result.majority), ("zero-shot", result.zero_shot)];
        let beside: String =
            beside.iter().filter_map(|(name, value)| Some(format!(", {name} {}", (*value)?))).collect();
        row(
            "result",
            format!(
                "{}{split} {} {} (n = {}{beside})",
                result.dataset, result.metric, result.value, result.n
            ),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
