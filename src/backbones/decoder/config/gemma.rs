//! Gemma 2 and 3 (Gemma Team 2024, 2025): Llama with scaled embeddings, norms after attention and MLP, and windows in some blocks.
//! Gemma 2 caps scores and logits; Gemma 3 norms heads in place of that, and blocks with a window turn by a base of their own.

use serde_json::Value as Json;

use super::{
    Architecture, ConfigError, DecoderConfig, Names, Positions, SoftCaps,
    fields::{Fields, Key, number},
    llama,
    rope::{self, Scaling},
};
use crate::{
    backbones::weights::Value,
    layers::{MlpShape, NormKind},
};

/// Bases of the releases, for files that leave them out.
const GLOBAL_BASE: f64 = 1e6;
const LOCAL_BASE: f64 = 1e4;
/// What blocks with a window see in files that don't say it.
const WINDOW: usize = 4096;
/// What ends a turn of a chat. GGUF files have it among their tokens, and seldom as a key.
const END_OF_TURN: &str = "<end_of_turn>";
/// What Gemma 2's releases cap scores and logits by.
const SCORE_CAP: f64 = 50.0;
const LOGIT_CAP: f64 = 30.0;

/// What the families differ in where files don't say it.
struct Family {
    architecture: Architecture,
    /// One block in so many sees all positions.
    pattern: usize,
    /// Blocks of the 27B model, whose scale is not that of its head's width. A GGUF file says it by nothing else.
    blocks_of_27b: usize,
}

const GEMMA_2: Family = Family { architecture: Architecture::Gemma2, pattern: 2, blocks_of_27b: 46 };
const GEMMA_3: Family = Family { architecture: Architecture::Gemma3, pattern: 6, blocks_of_27b: 62 };

const PREFIXES: &[&str] = &["model.", "", "language_model.model.", "model.language_model."];

/// Gemma 2.
pub(super) fn read_2(fields: &Fields<'_>) -> Result<DecoderConfig, ConfigError> {
    let soft_caps = SoftCaps {
        scores: soft_cap(fields, "attn_logit_softcapping", SCORE_CAP)?,
        logits: soft_cap(fields, "final_logit_softcapping", LOGIT_CAP)?,
    };
    Ok(DecoderConfig { soft_caps, ..block(fields, &GEMMA_2)? })
}

/// The cap of a name, which is the same in both formats; a `null` is none, and where nothing is said `default` holds.
fn soft_cap(fields: &Fields<'_>, name: &'static str, default: f64) -> Result<Option<f32>, ConfigError> {
    if fields.json().is_some_and(|text| text.get(name).is_some_and(Json::is_null)) {
        return Ok(None);
    }
    let cap = fields.some_number(Key { json: name, gguf: name })?.unwrap_or(default);
    if !((cap as f32).is_normal() && cap > 0.0) {
        return Err(ConfigError::value(name, cap.to_string(), "a positive number that f32 holds"));
    }
    Ok(Some(cap as f32))
}

/// The text part of Gemma 3.
pub(super) fn read_3(fields: &Fields<'_>) -> Result<DecoderConfig, ConfigError> {
    for unused in ["attn_logit_softcapping", "final_logit_softcapping"] {
        fields.must_be_unset(unused)?;
    }
    let config = block(fields, &GEMMA_3)?;
    Ok(DecoderConfig { positions: positions(fields, config.heads.dim)?, head_norms: true, ..config })
}

/// What both share.
fn block(fields: &Fields<'_>, family: &Family) -> Result<DecoderConfig, ConfigError> {
    for unused in ["use_bidirectional_attention", "attention_bias"] {
        fields.must_be_unset(unused)?;
    }
    let config = llama::block(fields, family.architecture)?;
    let NormKind::Rms { eps, .. } = config.norm else { return Ok(config) };
    let names = Names {
        mlp_norm: "pre_feedforward_layernorm",
        after_attention: "post_attention_layernorm",
        after_mlp: "post_feedforward_layernorm",
        ..config.names.behind(PREFIXES, fields.weights)
    };
    Ok(DecoderConfig {
        windows: windows(fields, family, config.layers())?,
        // Checkpoints store how far a norm's weight is from 1, GGUF files the weight.
        norm: NormKind::Rms { eps, offset: if fields.gguf().is_some() { 0.0 } else { 1.0 } },
        after_norms: true,
        mlp: MlpShape::Gated(llama::activation(fields.text("hidden_activation", "gelu_pytorch_tanh")?)?),
        attention_scale: (scalar(fields, family, &config)? as f32).powf(-0.5),
        embedding_scale: (config.hidden as f32).sqrt(),
        tied: fields.tied(true)?,
        names,
        eos: ends(fields, config.eos),
        ..config
    })
}

/// The tokens that end a text, the end of a turn among them.
fn ends(fields: &Fields<'_>, mut ends: Vec<u32>) -> Vec<u32> {
    let tokens = fields.gguf().and_then(|metadata| metadata.texts("tokenizer.ggml.tokens"));
    let turn = tokens.and_then(|tokens| tokens.iter().position(|token| token == END_OF_TURN));
    ends.extend(turn.map(|id| id as u32).filter(|id| !ends.contains(id)));
    ends
}

/// What attention divides by the root of.
fn scalar(fields: &Fields<'_>, family: &Family, config: &DecoderConfig) -> Result<f64, ConfigError> {
    match fields.json() {
        Some(json) => Ok(number(&json["query_pre_attn_scalar"], "query_pre_attn_scalar")?.unwrap_or(256.0)),
        None if config.layers() == family.blocks_of_27b => Ok((config.hidden / config.heads.heads) as f64),
        None => Ok(config.heads.dim as f64),
    }
}

fn positions(fields: &Fields<'_>, dim: usize) -> Result<Positions, ConfigError> {
    let Some(json) = fields.json() else {
        let local = fields.some_number(Key { json: "", gguf: "rope.freq_base_swa" })?.unwrap_or(LOCAL_BASE);
        let local = rope::frequencies(local, dim, Scaling::None);
        return Ok(Positions::Rotary { global: rope::of_gguf(fields, GLOBAL_BASE, dim)?, local });
    };
    let parameters = &json["rope_parameters"];
    let (global, local) = if parameters["full_attention"].is_object() {
        (&parameters["full_attention"], &parameters["sliding_attention"])
    } else if parameters.is_object() {
        (parameters, &Json::Null)
    } else {
        (&json["rope_scaling"], &Json::Null)
    };
    Ok(Positions::Rotary {
        global: rope::of_section(global, json, "rope_theta", GLOBAL_BASE, dim)?,
        local: rope::of_section(local, json, "rope_local_base_freq", LOCAL_BASE, dim)?,
    })
}

fn windows(fields: &Fields<'_>, family: &Family, layers: usize) -> Result<Vec<Option<usize>>, ConfigError> {
    let window = fields.some_count(Key { json: "sliding_window", gguf: "attention.sliding_window" })?;
    let window = window.unwrap_or(WINDOW);
    let windowed = match listed(fields)? {
        Some(listed) => listed,
        None => {
            let key = Key { json: "sliding_window_pattern", gguf: "attention.sliding_window_pattern" };
            let pattern = fields.some_count(key)?.unwrap_or(family.pattern);
            ConfigError::limit("sliding_window_pattern", pattern, 1..=1 << 12)?;
            (1..=layers).map(|block| !block.is_multiple_of(pattern)).collect()
        }
    };
    if windowed.len() != layers {
        let found = format!("a list of {}", windowed.len());
        return Err(ConfigError::value("layer_types", found, format!("one for each of {layers} blocks")));
    }
    Ok(windowed.into_iter().map(|windowed| windowed.then_some(window)).collect())
}

/// Which blocks have a window, where the checkpoint lists them.
fn listed(fields: &Fields<'_>) -> Result<Option<Vec<bool>>, ConfigError> {
    if let Some(metadata) = fields.gguf()
        && let key = format!("{}.attention.sliding_window_pattern", metadata.architecture())
        && let Some(Value::Bools(listed)) = metadata.get(&key)
    {
        return Ok(Some(listed.clone()));
    }
    let Some(listed) = fields.json().and_then(|json| json["layer_types"].as_array()) else { return Ok(None) };
    let windowed = |kind: &Json| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => {
            let expected = "sliding_attention and full_attention";
            Err(ConfigError::value("layer_types", kind.to_string(), expected))
        }
    };
    listed.iter().map(windowed).collect::<Result<_, _>>().map(Some)
}
