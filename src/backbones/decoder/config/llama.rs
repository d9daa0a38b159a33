//! Llama (Touvron et al. 2023): root-mean-square norms, rotary positions, a gated MLP, grouped queries. The other families are
//! told as differences of this one.

use super::{
    Architecture, Biases, ConfigError, DecoderConfig, Names, Positions, SoftCaps,
    fields::{Fields, Key},
    rope,
};
use crate::{
    kernels::{linear::Activation, ragged_attention::HeadShape},
    layers::{MlpShape, NormKind, Stored},
};

pub(super) const NAMES: Names = Names {
    prefix: "model.",
    table: "embed_tokens",
    positions: "",
    blocks: "layers",
    attention_norm: "input_layernorm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    query_key_stored: Stored::Rows,
    stored: Stored::Rows,
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    out: "self_attn.o_proj",
    after_attention: "",
    mlp_norm: "post_attention_layernorm",
    inner: &["mlp.gate_proj", "mlp.up_proj"],
    mlp_out: "mlp.down_proj",
    after_mlp: "",
    norm: "norm",
};

const PREFIXES: &[&str] = &["model.", ""];

/// Llama itself.
pub(super) fn read(fields: &Fields<'_>) -> Result<DecoderConfig, ConfigError> {
    let config = block(fields, Architecture::Llama)?;
    let experts = fields.some_count(Key { json: "num_local_experts", gguf: "expert_count" })?.unwrap_or(0);
    ConfigError::limit("expert_count", experts, 0..=0)?;
    let first = format!("{}layers.0.self_attn", config.names.prefix);
    let biases = match fields.gguf() {
        None => {
            let attention = fields.flag("attention_bias", false)?;
            Biases { qkv: attention, out: attention, mlp: fields.flag("mlp_bias", false)? }
        }
        Some(_) => Biases {
            qkv: fields.weights.contains(&format!("{first}.q_proj.bias")),
            out: fields.weights.contains(&format!("{first}.o_proj.bias")),
            mlp: fields.weights.contains(&format!("{}layers.0.mlp.gate_proj.bias", config.names.prefix)),
        },
    };
    let query_key_stored = match fields.gguf() {
        // llama.cpp's converter reorders q and k of this architecture, and of no other here.
        Some(_) => Stored::NeighbourPairs { dim: config.heads.dim },
        None => Stored::Rows,
    };
    Ok(DecoderConfig { biases, names: Names { query_key_stored, ..config.names }, ..config })
}

/// What Llama's relatives share, with Llama's choices.
pub(super) fn block(fields: &Fields<'_>, architecture: Architecture) -> Result<DecoderConfig, ConfigError> {
    let count = |json, gguf| fields.count(Key { json, gguf });
    let hidden = count("hidden_size", "embedding_length")?;
    let layers = count("num_hidden_layers", "block_count")?;
    ConfigError::limit("num_hidden_layers", layers, 1..=1 << 12)?;
    let heads = count("num_attention_heads", "attention.head_count")?;
    ConfigError::limit("num_attention_heads", heads, 1..=1 << 16)?;
    let kv_heads = fields.some_count(Key { json: "num_key_value_heads", gguf: "attention.head_count_kv" })?;
    let dim = fields.some_count(Key { json: "head_dim", gguf: "attention.key_length" })?;
    let dim = dim.unwrap_or(hidden / heads);
    ConfigError::limit("head_dim", dim, 2..=1 << 12)?;
    if !dim.is_multiple_of(2) {
        return Err(ConfigError::value("head_dim", dim.to_string(), "an even number"));
    }
    let global = rope::read(fields, dim)?;
    let eps = fields.number(Key { json: "rms_norm_eps", gguf: "attention.layer_norm_rms_epsilon" })?;
    Ok(DecoderConfig {
        architecture,
        vocab: fields.vocab()?,
        hidden,
        heads: HeadShape { heads, kv_heads: kv_heads.unwrap_or(heads), dim },
        inner: count("intermediate_size", "feed_forward_length")?,
        windows: vec![None; layers],
        max_positions: count("max_position_embeddings", "context_length")?,
        norm: NormKind::Rms { eps: eps as f32, offset: 0.0 },
        positions: Positions::Rotary { local: global.clone(), global },
        biases: Biases::default(),
        head_norms: false,
        after_norms: false,
        mlp: MlpShape::Gated(activation(fields.text("hidden_act", "silu")?)?),
        attention_scale: (dim as f32).powf(-0.5),
        soft_caps: SoftCaps::default(),
        embedding_scale: 1.0,
        tied: fields.tied(false)?,
        names: NAMES.behind(PREFIXES, fields.weights),
        bos: fields.bos()?,
        eos: fields.eos()?,
    })
}

/// The activation of a name.
pub(super) fn activation(name: &str) -> Result<Activation, ConfigError> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        other => Err(ConfigError::value("the activation", other, "silu, gelu_new or gelu_pytorch_tanh")),
    }
}
