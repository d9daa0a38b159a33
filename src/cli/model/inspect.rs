use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value as Json;

use crate::backbones::weights::{Metadata, Value, Weights};

/// `config.json` keys that are dimensions, as several architectures spell them.
const DIMENSIONS: [&str; 17] = [
    "d_model",
    "hidden_size",
    "n_embd",
    "d_kv",
    "head_dim",
    "d_ff",
    "intermediate_size",
    "num_layers",
    "num_decoder_layers",
    "num_hidden_layers",
    "n_layer",
    "num_heads",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "max_position_embeddings",
    "vocab_size",
];

/// What `dept model inspect` says of a model.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    path: String,
    format: &'static str,
    architecture: String,
    dimensions: BTreeMap<String, u64>,
    /// Numbers in the model; scales of quantised tensors aren't counted.
    parameters: u64,
    tensors: u64,
    bytes: u64,
    dtypes: BTreeMap<String, Share>,
    /// Entries of the tokenizer.
    vocabulary: Option<u64>,
    quantization: Option<String>,
    fingerprint: String,
}

/// What is stored in one number format.
#[derive(Debug, Default, Serialize)]
struct Share {
    tensors: u64,
    parameters: u64,
    bytes: u64,
}

/// Opens a folder or a GGUF file and sums it up.
pub(super) fn summarise(path: &Path) -> anyhow::Result<Summary> {
    let weights = Weights::open(path)?;
    let mut dtypes: BTreeMap<String, Share> = BTreeMap::new();
    for info in weights.tensors() {
        let share = dtypes.entry(info.format.name()).or_default();
        share.tensors += 1;
        share.bytes += info.bytes as u64;
        if !info.name.ends_with("_scale") {
            share.parameters += info.shape.iter().map(|&n| n as u64).product::<u64>();
        }
    }
    let total = |of: fn(&Share) -> u64| dtypes.values().map(of).sum();
    let described = match weights.metadata() {
        Some(metadata) => of_metadata(metadata),
        None => of_folder(&weights)?,
    };
    Ok(Summary {
        path: path.display().to_string(),
        format: described.format,
        architecture: described.architecture,
        dimensions: described.dimensions,
        parameters: total(|s| s.parameters),
        tensors: total(|s| s.tensors),
        bytes: total(|s| s.bytes),
        vocabulary: described.vocabulary,
        quantization: described.quantization,
        fingerprint: format!("sha256:{}", weights.fingerprint()),
        dtypes,
    })
}

/// What the configuration says, in either kind of file.
struct Described {
    format: &'static str,
    architecture: String,
    dimensions: BTreeMap<String, u64>,
    vocabulary: Option<u64>,
    quantization: Option<String>,
}

fn of_metadata(metadata: &Metadata) -> Described {
    let prefix = format!("{}.", metadata.architecture());
    let dimensions = metadata.iter().filter_map(|(key, value)| match value {
        Value::Int(value) => Some((key.strip_prefix(&prefix)?.to_owned(), u64::try_from(*value).ok()?)),
        _ => None,
    });
    Described {
        format: "GGUF",
        architecture: metadata.architecture().to_owned(),
        dimensions: dimensions.collect(),
        vocabulary: metadata.texts("tokenizer.ggml.tokens").map(|tokens| tokens.len() as u64),
        quantization: None,
    }
}

fn of_folder(weights: &Weights) -> anyhow::Result<Described> {
    let folder = weights.path();
    let config = weights.config().with_context(|| format!("'{}' has no config.json", folder.display()))?;
    let named = config.pointer("/architectures/0").or_else(|| config.get("model_type"));
    let vocabulary = match folder.join("tokenizer.json").is_file() {
        true => Some(weights.tokenizer()?.vocab_size() as u64),
        false => None,
    };
    let said = |pointer: &str| config.pointer(pointer).and_then(Json::as_str);
    let method = said("/quantization_config/quant_method");
    Ok(Described {
        format: "safetensors",
        architecture: named.and_then(Json::as_str).unwrap_or("unknown").to_owned(),
        dimensions: DIMENSIONS
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), config.get(*key)?.as_u64()?)))
            .collect(),
        vocabulary,
        quantization: method
            .map(|method| format!("{method} {}", said("/quantization_config/format").unwrap_or_default())),
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display| {
            writeln!(f, "{name:<32} {value}")
        };
        row(f, "model", &self.path)?;
        row(f, "format", &self.format)?;
        row(f, "architecture", &self.architecture)?;
        for (name, value) in &self.dimensions {
            row(f, name, value)?;
        }
        if let Some(vocabulary) = self.vocabulary {
            row(f, "tokenizer entries", &vocabulary)?;
        }
        if let Some(quantization) = &self.quantization {
            row(f, "quantization", quantization)?;
        }
        row(f, "fingerprint", &self.fingerprint)?;
        writeln!(f, "\n{:<10} {:>8} {:>14} {:>14}", "dtype", "tensors", "parameters", "bytes")?;
        for (dtype, share) in &self.dtypes {
            writeln!(f, "{dtype:<10} {:>8} {:>14} {:>14}", share.tensors, share.parameters, share.bytes)?;
        }
        writeln!(f, "{:<10} {:>8} {:>14} {:>14}", "total", self.tensors, self.parameters, self.bytes)
    }
}
