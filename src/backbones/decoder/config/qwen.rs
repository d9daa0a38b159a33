//! Qwen2 and Qwen3 (Yang et al. 2024, 2025): Llama with biases at q, k and v, then with normed heads instead.

use super::{
    Architecture, Biases, ConfigError, DecoderConfig,
    fields::{Fields, Key},
    llama,
};

/// Qwen2.
pub(super) fn read_2(fields: &Fields<'_>) -> Result<DecoderConfig, ConfigError> {
    let config = llama::block(fields, Architecture::Qwen2)?;
    let biases = Biases { qkv: true, ..Biases::default() };
    Ok(DecoderConfig { biases, windows: windows(fields, config.layers())?, ..config })
}

/// Qwen3.
pub(super) fn read_3(fields: &Fields<'_>) -> Result<DecoderConfig, ConfigError> {
    let config = llama::block(fields, Architecture::Qwen3)?;
    let attention = fields.flag("attention_bias", false)?;
    let biases = Biases { qkv: attention, out: attention, ..Biases::default() };
    Ok(DecoderConfig { biases, head_norms: true, windows: windows(fields, config.layers())?, ..config })
}

/// Off in nearly every release; where on, blocks from `max_window_layers` on have a window.
fn windows(fields: &Fields<'_>, layers: usize) -> Result<Vec<Option<usize>>, ConfigError> {
    if !fields.flag("use_sliding_window", false)? {
        return Ok(vec![None; layers]);
    }
    let window = fields.count(Key { json: "sliding_window", gguf: "attention.sliding_window" })?;
    let full = fields.count(Key { json: "max_window_layers", gguf: "" })?;
    Ok((0..layers).map(|layer| (layer >= full).then_some(window)).collect())
}
