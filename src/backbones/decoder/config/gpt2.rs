//! GPT-2: learned positions, layer norm, one map for q, k and v, biases everywhere, a plain MLP.

use super::{
    Architecture, Biases, ConfigError, DecoderConfig, Names, Positions, SoftCaps,
    fields::{Fields, Key},
    llama,
};
use crate::{
    kernels::{linear::Activation, ragged_attention::HeadShape},
    layers::{MlpShape, NormKind, Stored},
};

const NAMES: Names = Names {
    prefix: "transformer.",
    table: "wte",
    positions: "wpe",
    blocks: "h",
    attention_norm: "ln_1",
    qkv: &["attn.c_attn"],
    query_key_stored: Stored::Transposed,
    stored: Stored::Transposed,
    query_norm: "",
    key_norm: "",
    out: "attn.c_proj",
    after_attention: "",
    mlp_norm: "ln_2",
    inner: &["mlp.c_fc"],
    mlp_out: "mlp.c_proj",
    after_mlp: "",
    norm: "ln_f",
};

const PREFIXES: &[&str] = &["transformer.", ""];

pub(super) fn read(fields: &Fields<'_>) -> Result<DecoderConfig, ConfigError> {
    fields.must_be_unset("scale_attn_by_inverse_layer_idx")?;
    if !fields.flag("scale_attn_weights", true)? {
        return Err(ConfigError::value("scale_attn_weights", "false", "true"));
    }
    let count = |json, gguf| fields.count(Key { json, gguf });
    let hidden = count("n_embd", "embedding_length")?;
    let heads = count("n_head", "attention.head_count")?;
    let layers = count("n_layer", "block_count")?;
    ConfigError::limit("n_layer", layers, 1..=1 << 12)?;
    if heads == 0 || !hidden.is_multiple_of(heads) {
        return Err(ConfigError::value(
            "n_head",
            heads.to_string(),
            format!("a divisor of n_embd, {hidden}"),
        ));
    }
    let dim = hidden / heads;
    let inner = fields.some_count(Key { json: "n_inner", gguf: "feed_forward_length" })?;
    let eps = fields.some_number(Key { json: "layer_norm_epsilon", gguf: "attention.layer_norm_epsilon" })?;
    // llama.cpp's converter turns GPT-2's matrices round.
    let stored = if fields.gguf().is_some() { Stored::Rows } else { Stored::Transposed };
    let names = Names { stored, query_key_stored: stored, ..NAMES };
    Ok(DecoderConfig {
        architecture: Architecture::Gpt2,
        vocab: fields.vocab()?,
        hidden,
        heads: HeadShape { heads, kv_heads: heads, dim },
        inner: inner.unwrap_or(4 * hidden),
        windows: vec![None; layers],
        max_positions: count("n_positions", "context_length")?,
        norm: NormKind::Layer { eps: eps.unwrap_or(1e-5) as f32 },
        positions: Positions::Learned,
        biases: Biases { qkv: true, out: true, mlp: true },
        head_norms: false,
        after_norms: false,
        mlp: match fields.text("activation_function", "gelu_new")? {
            "relu" => MlpShape::Plain(Activation::Relu),
            other => MlpShape::Plain(llama::activation(other)?),
        },
        attention_scale: (dim as f32).powf(-0.5),
        soft_caps: SoftCaps::default(),
        embedding_scale: 1.0,
        tied: fields.tied(true)?,
        names: names.behind(PREFIXES, fields.weights),
        bos: fields.bos()?,
        eos: fields.eos()?,
    })
}
