use candle_nn::Activation as Named;
use candle_transformers::models::t5;

use crate::{
    backbones::weights::{Metadata, Weights},
    kernels::linear::Activation,
    layers::MlpShape,
};

/// Why a checkpoint's configuration is not one of a T5 that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is none.
    #[error(
        "'{0}' has no config.json: a model folder holds config.json, model.safetensors and tokenizer.json"
    )]
    Missing(String),
    /// It can't be read as T5's.
    #[error("config.json is not one of a T5 model: {0}")]
    Json(#[from] serde_json::Error),
    /// A GGUF file lacks a key.
    #[error("the GGUF file has no '{0}', which T5 needs: convert the model again with a current llama.cpp")]
    Key(String),
    /// A value makes no sense.
    #[error("the configuration says {what} is {found}: expected {expected}")]
    Value {
        /// Which value.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it has to be.
        expected: String,
    },
}

/// The dimensions of a T5, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct T5Config {
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Width of a row, d.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Numbers a head.
    pub head_dim: usize,
    /// Width of the MLP's inner layer.
    pub inner: usize,
    /// Encoder blocks.
    pub encoder_layers: usize,
    /// Decoder blocks.
    pub decoder_layers: usize,
    /// Rows of the relative bias.
    pub buckets: usize,
    /// Distances from here on share a bucket.
    pub max_distance: usize,
    /// Added to the mean square in norms.
    pub eps: f32,
    /// The MLP's kind.
    pub mlp: MlpShape,
    /// Whether the decoder's output is scaled by `1 / sqrt(d)` before the output map (v1.0, whose map is the table).
    pub scale_output: bool,
    /// The token that ends a text.
    pub eos: u32,
    /// The token that every text starts from.
    pub decoder_start: u32,
}

impl T5Config {
    /// Reads the configuration of a Hugging Face folder or a GGUF file.
    ///
    /// # Errors
    /// When it is missing, is another model's or makes no sense.
    pub fn read(weights: &Weights) -> Result<Self, ConfigError> {
        match (weights.config(), weights.metadata()) {
            (Some(config), _) => Self::from_json(config)?.checked(),
            (None, Some(metadata)) => Self::from_gguf(metadata, weights)?.checked(),
            (None, None) => Err(ConfigError::Missing(weights.path().display().to_string())),
        }
    }

    fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        let mut json = json.clone();
        // candle's own default is gelu; a config without the key, such as t5-small's, means relu.
        if let Some(fields) = json.as_object_mut() {
            fields.entry("feed_forward_proj").or_insert("relu".into());
        }
        let config: t5::Config = serde_json::from_value(json.clone())?;
        let activation = config.feed_forward_proj;
        let mlp = match (activation.gated, activation.activation) {
            (false, Named::Relu) => MlpShape::Plain(Activation::Relu),
            (true, Named::NewGelu | Named::Gelu) => MlpShape::Gated(Activation::GeluTanh),
            (true, Named::Silu) => MlpShape::Gated(Activation::Silu),
            (gated, other) => {
                let found = format!("{}{other:?}", if gated { "gated " } else { "" });
                let expected = "relu, gated-gelu or gated-silu".to_owned();
                return Err(ConfigError::Value { what: "feed_forward_proj", found, expected });
            }
        };
        Ok(Self {
            vocab: config.vocab_size,
            hidden: config.d_model,
            heads: config.num_heads,
            head_dim: config.d_kv,
            inner: config.d_ff,
            encoder_layers: config.num_layers,
            decoder_layers: config.num_decoder_layers.unwrap_or(config.num_layers),
            buckets: config.relative_attention_num_buckets,
            max_distance: config.relative_attention_max_distance,
            eps: config.layer_norm_epsilon as f32,
            mlp,
            // transformers 5 writes every T5 as tied and keeps the old meaning of the flag in a key of its own.
            scale_output: json["scale_decoder_outputs"].as_bool().unwrap_or(config.tie_word_embeddings),
            eos: token("eos_token_id", config.eos_token_id)?,
            decoder_start: token(
                "decoder_start_token_id",
                config.decoder_start_token_id.unwrap_or(config.pad_token_id),
            )?,
        })
    }

    fn from_gguf(metadata: &Metadata, weights: &Weights) -> Result<Self, ConfigError> {
        let key = |name: &str| {
            let key = format!("t5.{name}");
            metadata.int(&key).ok_or(ConfigError::Key(key))
        };
        let gated = weights.contains("encoder.block.0.layer.1.DenseReluDense.wi_0.weight");
        let layers = key("block_count")?;
        let vocab = metadata.texts("tokenizer.ggml.tokens").map(<[String]>::len);
        let eos = metadata.int("tokenizer.ggml.eos_token_id").unwrap_or(1);
        let eps_key = "t5.attention.layer_norm_rms_epsilon";
        let eps = metadata.float(eps_key).or_else(|| metadata.float("t5.attention.layer_norm_epsilon"));
        Ok(Self {
            vocab: vocab.ok_or_else(|| ConfigError::Key("tokenizer.ggml.tokens".to_owned()))?,
            hidden: key("embedding_length")?,
            heads: key("attention.head_count")?,
            head_dim: key("attention.key_length")?,
            inner: key("feed_forward_length")?,
            encoder_layers: layers,
            decoder_layers: key("decoder_block_count").unwrap_or(layers),
            buckets: key("attention.relative_buckets_count")?,
            // llama.cpp's format has no key for it: every released T5 has 128.
            max_distance: key("attention.relative_max_distance").unwrap_or(128),
            eps: eps.ok_or_else(|| ConfigError::Key(eps_key.to_owned()))? as f32,
            mlp: if gated {
                MlpShape::Gated(Activation::GeluTanh)
            } else {
                MlpShape::Plain(Activation::Relu)
            },
            scale_output: !weights.contains("lm_head.weight"),
            eos: token("tokenizer.ggml.eos_token_id", eos)?,
            decoder_start: token("t5.decoder_start_token_id", key("decoder_start_token_id").unwrap_or(0))?,
        })
    }

    fn checked(self) -> Result<Self, ConfigError> {
        let positive = [
            ("vocab_size", self.vocab),
            ("d_model", self.hidden),
            ("num_heads", self.heads),
            ("d_kv", self.head_dim),
            ("d_ff", self.inner),
            ("num_layers", self.encoder_layers),
            ("num_decoder_layers", self.decoder_layers),
        ];
        for (what, value) in positive {
            // Far above any real model, far below where products of two overflow.
            limit(what, value, 1..=1 << 24)?;
        }
        limit("relative_attention_num_buckets", self.buckets, 4..=1 << 12)?;
        limit("relative_attention_max_distance", self.max_distance, self.buckets / 2 + 1..=1 << 20)?;
        limit("eos_token_id", self.eos as usize, 0..=self.vocab - 1)?;
        limit("decoder_start_token_id", self.decoder_start as usize, 0..=self.vocab - 1)?;
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            let expected = "a small positive number".to_owned();
            return Err(ConfigError::Value {
                what: "layer_norm_epsilon",
                found: self.eps.to_string(),
                expected,
            });
        }
        Ok(self)
    }
}

fn limit(
    what: &'static str,
    value: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("{} to {}", range.start(), range.end());
    Err(ConfigError::Value { what, found: value.to_string(), expected })
}

fn token(what: &'static str, id: usize) -> Result<u32, ConfigError> {
    u32::try_from(id).map_err(|_| ConfigError::Value {
        what,
        found: id.to_string(),
        expected: "a token id".to_owned(),
    })
}
