//! What a decoder-only checkpoint is: dimensions and the few ways in which its block differs, read once and checked.

mod error;
mod fields;
mod gemma;
mod gpt2;
mod llama;
mod names;
mod qwen;
mod rope;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
use fields::Fields;
pub use names::Names;

use crate::{
    backbones::weights::Weights,
    kernels::ragged_attention::HeadShape,
    layers::{MlpShape, NormKind},
};

/// The families that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// GPT-2 (Radford et al. 2019).
    Gpt2,
    /// Llama and what shares its block, such as SmolLM2.
    Llama,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3.
    Qwen3,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, its text part.
    Gemma3,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Gpt2, Self::Llama, Self::Qwen2, Self::Qwen3, Self::Gemma2, Self::Gemma3];

    /// The name in GGUF files, and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt2",
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
        }
    }

    /// The architecture of `name`: a `model_type`, a class of `architectures` or a GGUF `general.architecture`.
    pub fn find(name: &str) -> Option<Self> {
        Some(match name {
            "gpt2" | "GPT2LMHeadModel" => Self::Gpt2,
            "llama" | "LlamaForCausalLM" => Self::Llama,
            "qwen2" | "Qwen2ForCausalLM" => Self::Qwen2,
            "qwen3" | "Qwen3ForCausalLM" => Self::Qwen3,
            "gemma2" | "Gemma2ForCausalLM" => Self::Gemma2,
            "gemma3" | "gemma3_text" | "Gemma3ForCausalLM" => Self::Gemma3,
            _ => return None,
        })
    }
}

/// How a row learns its position.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// A learned row by position is added to the embeddings.
    Learned,
    /// Queries and keys are turned by these frequencies `(head_dim / 2)`, radians a position.
    Rotary {
        /// In blocks that see all positions.
        global: Vec<f32>,
        /// In blocks with a window.
        local: Vec<f32>,
    },
}

/// What keeps numbers below a bound: `cap * tanh(x / cap)`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SoftCaps {
    /// Of attention's scaled dot products.
    pub scores: Option<f32>,
    /// Of logits.
    pub logits: Option<f32>,
}

/// Which maps have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Biases {
    /// q, k and v.
    pub qkv: bool,
    /// Attention's output.
    pub out: bool,
    /// The MLP's.
    pub mlp: bool,
}

/// A decoder-only model, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Width of a row, d.
    pub hidden: usize,
    /// How attention's columns are cut into heads.
    pub heads: HeadShape,
    /// Width of the MLP's inner layer.
    pub inner: usize,
    /// By block: how many positions a row sees, or all.
    pub windows: Vec<Option<usize>>,
    /// Positions that the model was made for.
    pub max_positions: usize,
    /// The norms of rows; those of heads have the same constants.
    pub norm: NormKind,
    /// How a row learns its position.
    pub positions: Positions,
    /// Which maps have biases.
    pub biases: Biases,
    /// Whether the heads of q and k are normed.
    pub head_norms: bool,
    /// Whether what attention and MLP add to the residual stream is normed.
    pub after_norms: bool,
    /// The MLP's kind.
    pub mlp: MlpShape,
    /// Factor on attention's dot products.
    pub attention_scale: f32,
    /// What attention's scores and the logits are capped by.
    pub soft_caps: SoftCaps,
    /// Factor on token embeddings; prompts and updates of adapters are not scaled.
    pub embedding_scale: f32,
    /// Whether the output map is the embedding table.
    pub tied: bool,
    /// What the checkpoint calls its tensors.
    pub names: Names,
    /// The token that starts a text.
    pub bos: Option<u32>,
    /// The tokens that end a text.
    pub eos: Vec<u32>,
}

impl DecoderConfig {
    /// Reads the configuration of a Hugging Face folder or a GGUF file.
    ///
    /// # Errors
    /// When it is missing, is another kind of model's or makes no sense.
    pub fn read(weights: &Weights) -> Result<Self, ConfigError> {
        let fields = Fields::of(weights)?;
        let config = match fields.architecture()? {
            Architecture::Gpt2 => gpt2::read(&fields),
            Architecture::Llama => llama::read(&fields),
            Architecture::Qwen2 => qwen::read_2(&fields),
            Architecture::Qwen3 => qwen::read_3(&fields),
            Architecture::Gemma2 => gemma::read_2(&fields),
            Architecture::Gemma3 => gemma::read_3(&fields),
        };
        config?.checked()
    }

    /// Number of blocks.
    pub fn layers(&self) -> usize {
        self.windows.len()
    }

    fn checked(self) -> Result<Self, ConfigError> {
        // Far above any real model, far below where products of two overflow.
        let sizes = 1..=1 << 24;
        for (what, value) in [
            ("vocab_size", self.vocab),
            ("hidden_size", self.hidden),
            ("num_attention_heads", self.heads.heads),
            ("num_key_value_heads", self.heads.kv_heads),
            ("intermediate_size", self.inner),
            ("max_position_embeddings", self.max_positions),
        ] {
            ConfigError::limit(what, value, sizes.clone())?;
        }
        ConfigError::limit("head_dim", self.heads.dim, 1..=1 << 12)?;
        ConfigError::limit("num_hidden_layers", self.layers(), 1..=1 << 12)?;
        for window in self.windows.iter().flatten() {
            ConfigError::limit("sliding_window", *window, sizes.clone())?;
        }
        if !self.heads.heads.is_multiple_of(self.heads.kv_heads) {
            let found = format!("{} with {} heads", self.heads.kv_heads, self.heads.heads);
            return Err(ConfigError::value("num_key_value_heads", found, "a divisor of the heads"));
        }
        for &id in self.eos.iter().chain(&self.bos) {
            ConfigError::limit("eos_token_id or bos_token_id", id as usize, 0..=self.vocab - 1)?;
        }
        let (NormKind::Rms { eps, .. } | NormKind::Layer { eps }) = self.norm;
        for (what, value) in [
            ("the norms' epsilon", eps),
            ("query_pre_attn_scalar", self.attention_scale),
            ("the embeddings' scale", self.embedding_scale),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(ConfigError::value(what, value.to_string(), "a small positive number"));
            }
        }
        if let Positions::Rotary { global, local } = &self.positions
            && let Some(bad) = global.iter().chain(local).find(|frequency| !frequency.is_finite())
        {
            return Err(ConfigError::value("a rotary frequency", bad.to_string(), "a finite number"));
        }
        Ok(self)
    }
}
