//! `dept adapter`: look at adapter folders without a server.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    adapter::{BackboneShape, Card, Generation, LoadedAdapter, Task, folder, tensor_file::TensorInfo},
    domain::AdapterName,
};

/// Arguments of `dept adapter`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check an adapter folder and print what is in it
    Inspect {
        /// The folder with adapter_config.json and adapter_model.safetensors or .bin
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Print JSON in place of the table
        #[arg(long)]
        json: bool,
        /// Serve this task of a multitask prompt, counted from 0 [default: the config's dept_task_id]
        #[arg(long, value_name = "N")]
        task_id: Option<usize>,
    },
    /// Check an adapter folder; print one line and exit with 0, or the error and exit with 1
    Validate {
        /// The folder with adapter_config.json and adapter_model.safetensors or .bin
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Check too that it fits the model in this folder (its config.json)
        #[arg(long, value_name = "PATH")]
        model: Option<PathBuf>,
    },
}

/// Runs `dept adapter`.
///
/// # Errors
/// When the folder holds no sound adapter, or one that does not fit the model.
pub fn run(args: Args) -> anyhow::Result<()> {
    let report = match args.command {
        Command::Inspect { folder, json, task_id } => inspect(&folder, json, task_id)?,
        Command::Validate { folder, model } => validate(&folder, model.as_deref())?,
    };
    io::stdout().lock().write_all(report.as_bytes()).context("the report can't be written")
}

fn inspect(path: &Path, as_json: bool, task_id: Option<usize>) -> anyhow::Result<String> {
    let loaded = folder::load_task(path, task_id)?;
    let (file, tensors) = (loaded.format.file_name(), loaded.tensors.clone());
    let generation = named(path, loaded)?;
    if as_json {
        let text = serde_json::to_string_pretty(&object(&generation, file, &tensors))?;
        return Ok(text + "\n");
    }
    Ok(table(&generation, file, &tensors)?)
}

fn validate(path: &Path, model: Option<&Path>) -> anyhow::Result<String> {
    let generation = named(path, folder::load(path)?)?;
    let fits = match model {
        None => String::new(),
        Some(model) => {
            let shape = backbone_shape(model)?;
            shape.check(&generation)?;
            format!(", fits {}", shape.name)
        }
    };
    Ok(format!("ok: {} {}{fits}\n", generation.name(), generation.version()))
}

/// Named by its folder, as a server would do it; a folder of no legal name can still be looked at.
fn named(path: &Path, loaded: LoadedAdapter) -> anyhow::Result<Generation> {
    let real = path.canonicalize().with_context(|| format!("'{}' has no name", path.display()))?;
    let legal = real.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let name: AdapterName = legal.map_or_else(|| "unnamed".parse(), Ok)?;
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
    match weights.low_rank() {
        Some(pair) => {
            row("rank", format!("r = {}", pair.rank()))?;
            row("max length", format!("s = {} tokens", pair.max_length()))?;
            row("scale", format!("{} = lora_alpha / sqrt(r)", pair.scale()))?;
        }
        None => row("rank", "r = 0, no low-rank pair".into())?,
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
