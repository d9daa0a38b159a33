//! Frequencies of the rotary embedding, as transformers' `modeling_rope_utils` computes them.

use std::f32::consts::TAU;

use serde_json::Value as Json;

use super::{
    ConfigError,
    fields::{Fields, Key, number},
};

/// How a model was stretched beyond the context that it was first trained on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scaling {
    None,
    /// All positions are divided by a factor.
    Linear(f64),
    /// Llama 3: slow turns are divided by a factor, fast ones stay, those between are mixed.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

/// `(dim / 2)` radians a position.
pub(super) fn frequencies(base: f64, dim: usize, scaling: Scaling) -> Vec<f32> {
    let plain = (0..dim / 2).map(|i| {
        let exponent = (2 * i) as f32 / dim as f32;
        1.0 / (base.powf(f64::from(exponent)) as f32)
    });
    match scaling {
        Scaling::None => plain.collect(),
        Scaling::Linear(factor) => plain.map(|frequency| frequency / factor as f32).collect(),
        Scaling::Llama3 { factor, low, high, original } => {
            let (factor, low, high, original) = (factor as f32, low as f32, high as f32, original as f32);
            let stretch = |frequency: f32| {
                let wavelength = TAU / frequency;
                if wavelength < original / high {
                    frequency
                } else if wavelength > original / low {
                    frequency / factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            };
            plain.map(stretch).collect()
        }
    }
}

/// The frequencies of a model with one kind of blocks.
pub(super) fn read(fields: &Fields<'_>, dim: usize) -> Result<Vec<f32>, ConfigError> {
    match fields.json() {
        Some(json) => of_section(section(json), json, "rope_theta", 10_000.0, dim),
        None => of_gguf(fields, 10_000.0, dim),
    }
}

/// transformers 5 keeps all in `rope_parameters`, version 4 in `rope_theta` and `rope_scaling`.
fn section(json: &Json) -> &Json {
    if json["rope_parameters"].is_object() { &json["rope_parameters"] } else { &json["rope_scaling"] }
}

/// Frequencies of one section; its base may lie beside it under `base_key`.
pub(super) fn of_section(
    section: &Json,
    beside: &Json,
    base_key: &str,
    default_base: f64,
    dim: usize,
) -> Result<Vec<f32>, ConfigError> {
    let base = match number(&section["rope_theta"], "rope_theta")? {
        Some(base) => base,
        None => number(&beside[base_key], base_key)?.unwrap_or(default_base),
    };
    let wanted = |key: &str| number(&section[key], key)?.ok_or_else(|| ConfigError::Key(key.to_owned()));
    let kind = section["rope_type"].as_str().or_else(|| section["type"].as_str()).unwrap_or("default");
    let scaling = match kind {
        "default" => Scaling::None,
        "linear" => Scaling::Linear(wanted("factor")?),
        "llama3" => Scaling::Llama3 {
            factor: wanted("factor")?,
            low: wanted("low_freq_factor")?,
            high: wanted("high_freq_factor")?,
            original: wanted("original_max_position_embeddings")?,
        },
        other => return Err(ConfigError::value("rope_type", other, "default, linear or llama3")),
    };
    for json in [section, beside] {
        match number(&json["partial_rotary_factor"], "partial_rotary_factor")? {
            None | Some(1.0) => {}
            Some(part) => {
                return Err(ConfigError::value("partial_rotary_factor", part.to_string(), "whole heads, 1"));
            }
        }
    }
    checked(base, scaling)?;
    Ok(frequencies(base, dim, scaling))
}

/// Frequencies of a GGUF file. Llama 3's stretching lies in a tensor of divisors.
pub(super) fn of_gguf(fields: &Fields<'_>, default_base: f64, dim: usize) -> Result<Vec<f32>, ConfigError> {
    let key = |gguf| Key { json: "", gguf };
    let base = fields.some_number(key("rope.freq_base"))?.unwrap_or(default_base);
    let turned = fields.some_count(key("rope.dimension_count"))?.unwrap_or(dim);
    if turned != dim {
        return Err(ConfigError::value(
            "rope.dimension_count",
            turned.to_string(),
            format!("whole heads, {dim}"),
        ));
    }
    let kind_key = fields.gguf().map(|metadata| format!("{}.rope.scaling.type", metadata.architecture()));
    let kind = fields.gguf().zip(kind_key).and_then(|(metadata, key)| metadata.text(&key)).unwrap_or("none");
    let scaling = match (kind, fields.some_number(key("rope.scaling.factor"))?) {
        ("none", _) | ("linear", None) => Scaling::None,
        ("linear", Some(factor)) => Scaling::Linear(factor),
        (other, _) => return Err(ConfigError::value("rope.scaling.type", other, "none or linear")),
    };
    checked(base, scaling)?;
    let mut frequencies = frequencies(base, dim, scaling);
    if fields.weights.contains("rope_freqs.weight") {
        let divisors = fields.weights.tensor_f32("rope_freqs.weight", &[dim / 2])?;
        for (frequency, divisor) in frequencies.iter_mut().zip(divisors) {
            *frequency /= divisor;
        }
    }
    Ok(frequencies)
}

fn checked(base: f64, scaling: Scaling) -> Result<(), ConfigError> {
    let positive = |what, value: f64| match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(ConfigError::value(what, value.to_string(), "a positive number")),
    };
    positive("the rotary base", base)?;
    match scaling {
        Scaling::None => Ok(()),
        Scaling::Linear(factor) => positive("the rotary factor", factor),
        Scaling::Llama3 { factor, low, high, original } => {
            positive("the rotary factor", factor)?;
            positive("low_freq_factor", low)?;
            positive("high_freq_factor - low_freq_factor", high - low)?;
            positive("original_max_position_embeddings", original)
        }
    }
}
