//! T5 (Raffel et al. 2020), v1.0 (relu, tied) and v1.1 and flan (gated, untied), over packed rows without padding.
//!
//! The encoder sees embeddings, not ids, so that an adapter's rows can stand in front. Cross-attention K/V are computed
//! once a sequence; both they and the decoder's own K/V live in slabs that a runner owns, one a decoder block.

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::{
    kernels::{
        Place, RowIndices,
        dept_embed::{Adapters, PlacedTable, RowTable},
        linear::LinearMap,
        norm::Norm,
        pool::ComputePool,
        ragged_attention::{Attention, BiasShape, Direction, HeadShape, RelativeBias, Span, SpanTables},
    },
    layers::{CrossAttention, LoadError, Loader, Mlp, MlpShape, NormKind, Part, SelfAttention, Stored},
};

mod config;
mod teacher_forced;

pub use config::{ConfigError, T5Config};

/// A resident T5.
#[derive(Debug)]
pub struct T5 {
    config: T5Config,
    table: PlacedTable,
    encoder: Vec<EncoderBlock>,
    encoder_bias: RelativeBias,
    encoder_norm: Norm,
    decoder: Vec<DecoderBlock>,
    decoder_bias: RelativeBias,
    decoder_norm: Norm,
    head: LinearMap,
    place: Place,
    pool: ComputePool,
}

#[derive(Debug)]
struct EncoderBlock {
    attention: SelfAttention,
    mlp: Mlp,
}

#[derive(Debug)]
struct DecoderBlock {
    attention: SelfAttention,
    cross: CrossAttention,
    mlp: Mlp,
}

/// The longest sequences that a model is laid out for; its relative biases reach this far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Rows of a prompt, virtual tokens included.
    pub prompt: usize,
    /// Generated tokens.
    pub new_tokens: usize,
}

/// The decoder's share of a step.
#[derive(Debug, Clone, Copy)]
pub struct DecoderBatch<'a> {
    /// Each sequence's rows and its own past.
    pub past: &'a [Span<'a>],
    /// The same rows and the prompt that they read.
    pub prompt: &'a [Span<'a>],
    /// Where each row's K/V go.
    pub slots: &'a RowIndices,
    /// K/V of every decoder block. `(slots, [k; v])`
    pub slabs: &'a [Tensor],
}

impl T5 {
    /// Builds the model from its checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape or is not finite.
    pub fn load(loader: &Loader<'_>, config: T5Config, reach: Reach) -> std::result::Result<Self, LoadError> {
        let build = Builder { loader, config: &config };
        // First, while little else is there: where maps are read whole (for a device, in training), this one takes most.
        let head = if loader.weights.contains("lm_head.weight") {
            loader.head("lm_head", config.vocab, config.hidden)?
        } else {
            loader.tied_head("shared", config.vocab, config.hidden)?
        };
        let encoder = (0..config.encoder_layers)
            .map(|i| build.encoder_block(i))
            .collect::<std::result::Result<_, _>>()?;
        let decoder = (0..config.decoder_layers)
            .map(|i| build.decoder_block(i))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            table: loader.embedding("shared", (config.vocab, config.hidden), 1.0)?,
            encoder,
            encoder_bias: build.bias("encoder", Direction::Both, reach.prompt)?,
            encoder_norm: build.norm("encoder.final_layer_norm")?,
            decoder,
            decoder_bias: build.bias("decoder", Direction::Past, reach.new_tokens + 1)?,
            decoder_norm: build.norm("decoder.final_layer_norm")?,
            head,
            place: loader.place.clone(),
            pool: loader.pool.clone(),
            config,
        })
    }

    /// The model's dimensions.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Columns of a slab row: keys and values of one position in one block.
    pub fn slab_width(&self) -> usize {
        2 * self.heads().kv_width()
    }

    fn heads(&self) -> HeadShape {
        HeadShape { heads: self.config.heads, kv_heads: self.config.heads, dim: self.config.head_dim }
    }

    fn attention<'a>(
        &'a self,
        (spans, tables): (&'a [Span<'a>], &'a SpanTables),
        bias: Option<&'a RelativeBias>,
    ) -> Attention<'a> {
        let (heads, pool, tables) = (self.heads(), &self.pool, Some(tables));
        // T5 folds the usual 1 / sqrt(dim) into its initialisation.
        Attention { heads, scale: 1.0, soft_cap: None, bias, window: None, spans, pool, tables }
    }

    /// Where it computes.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Embeds rows, adapters applied. Returns `(rows, hidden)`.
    ///
    /// # Errors
    /// When a row points outside the table or its slot.
    pub fn embed(&self, adapters: &Adapters<'_>, rows: &RowTable) -> Result<Tensor> {
        self.table.embed(adapters, rows, &self.pool)
    }

    /// Runs the encoder blocks `layers` over packed prompts. `(rows, hidden) -> (rows, hidden)`
    ///
    /// # Errors
    /// When the spans do not cover the rows.
    pub fn encode(&self, mut hidden: Tensor, spans: &[Span<'_>], layers: Range<usize>) -> Result<Tensor> {
        let tables = SpanTables::at(&self.place);
        let attention = self.attention((spans, &tables), Some(&self.encoder_bias));
        for block in &self.encoder[layers] {
            hidden = block.attention.among_rows(&hidden, &attention)?;
            hidden = block.mlp.forward(&hidden)?;
        }
        Ok(hidden)
    }

    /// The encoder's output after its last block. `(rows, hidden) -> (rows, hidden)`
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn finish_encoder(&self, hidden: &Tensor) -> Result<Tensor> {
        self.encoder_norm.forward(hidden)
    }

    /// Computes every decoder block's K/V of the encoder's output `(rows, hidden)` into the slabs at `slots`.
    ///
    /// # Errors
    /// When a slot lies outside of a slab.
    pub fn write_prompt(&self, encoded: &Tensor, slabs: &[Tensor], slots: &RowIndices) -> Result<()> {
        self.decoder.iter().zip(slabs).try_for_each(|(block, slab)| block.cross.write(encoded, slab, slots))
    }

    /// Runs the decoder over embedded rows. `(rows, hidden) -> (rows, hidden)`, normed and ready for [`T5::logits`].
    ///
    /// # Errors
    /// When spans or slots do not fit.
    pub fn decode(&self, mut hidden: Tensor, batch: &DecoderBatch<'_>) -> Result<Tensor> {
        let [past_tables, prompt_tables] = [SpanTables::at(&self.place), SpanTables::at(&self.place)];
        let past = self.attention((batch.past, &past_tables), Some(&self.decoder_bias));
        let prompt = self.attention((batch.prompt, &prompt_tables), None);
        for (block, slab) in self.decoder.iter().zip(batch.slabs) {
            hidden = block.attention.cached(&hidden, &past, slab, batch.slots)?;
            hidden = block.cross.forward(&hidden, &prompt, slab)?;
            hidden = block.mlp.forward(&hidden)?;
        }
        self.decoder_norm.forward(&hidden)
    }

    /// The logits of decoder rows. `(rows, hidden) -> (rows, vocab)`
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        if !self.config.scale_output {
            return self.head.forward(hidden);
        }
        self.head.forward(&(hidden * (self.config.hidden as f64).powf(-0.5))?)
    }
}

/// Makes the blocks from the names that Hugging Face checkpoints use.
struct Builder<'a> {
    loader: &'a Loader<'a>,
    config: &'a T5Config,
}

impl Builder<'_> {
    fn encoder_block(&self, index: usize) -> std::result::Result<EncoderBlock, LoadError> {
        let block = format!("encoder.block.{index}.layer");
        Ok(EncoderBlock {
            attention: self.self_attention(&format!("{block}.0"))?,
            mlp: self.mlp(&format!("{block}.1"))?,
        })
    }

    fn decoder_block(&self, index: usize) -> std::result::Result<DecoderBlock, LoadError> {
        let block = format!("decoder.block.{index}.layer");
        Ok(DecoderBlock {
            attention: self.self_attention(&format!("{block}.0"))?,
            cross: self.cross_attention(&format!("{block}.1"))?,
            mlp: self.mlp(&format!("{block}.2"))?,
        })
    }

    fn norm(&self, module: &str) -> std::result::Result<Norm, LoadError> {
        self.loader.norm(module, self.config.hidden, NormKind::Rms { eps: self.config.eps, offset: 0.0 })
    }

    fn self_attention(&self, layer: &str) -> std::result::Result<SelfAttention, LoadError> {
        let (hidden, inner) = (self.config.hidden, self.config.heads * self.config.head_dim);
        let names = format!("{layer}.SelfAttention.");
        Ok(SelfAttention {
            norm: self.norm(&format!("{layer}.layer_norm"))?,
            qkv: self.loader.linear(&names, &[("q", inner), ("k", inner), ("v", inner)], hidden)?,
            out: self.loader.linear(&names, &[("o", hidden)], inner)?,
        })
    }

    fn cross_attention(&self, layer: &str) -> std::result::Result<CrossAttention, LoadError> {
        let (hidden, inner) = (self.config.hidden, self.config.heads * self.config.head_dim);
        let names = format!("{layer}.EncDecAttention.");
        Ok(CrossAttention {
            norm: self.norm(&format!("{layer}.layer_norm"))?,
            query: self.loader.linear(&names, &[("q", inner)], hidden)?,
            key_value: self.loader.linear(&names, &[("k", inner), ("v", inner)], hidden)?,
            out: self.loader.linear(&names, &[("o", hidden)], inner)?,
        })
    }

    fn mlp(&self, layer: &str) -> std::result::Result<Mlp, LoadError> {
        let (hidden, inner) = (self.config.hidden, self.config.inner);
        let names = format!("{layer}.DenseReluDense.");
        let part = |name| Part { name, n: inner, bias: false, stored: Stored::Rows };
        let parts: &[Part<'_>] = match self.config.mlp {
            MlpShape::Plain(_) => &[part("wi")],
            MlpShape::Gated(_) => &[part("wi_0"), part("wi_1")],
        };
        let (activated, gate) = self.loader.mlp_inner(&names, parts, hidden, self.config.mlp)?;
        Ok(Mlp {
            norm: self.norm(&format!("{layer}.layer_norm"))?,
            inner: activated,
            gate,
            out: self.loader.linear(&names, &[("wo", hidden)], inner)?,
            after: None,
        })
    }

    /// Only the first block of a stack holds the bias; all blocks use it.
    fn bias(
        &self,
        stack: &str,
        direction: Direction,
        reach: usize,
    ) -> std::result::Result<RelativeBias, LoadError> {
        let T5Config { buckets, max_distance, heads, .. } = *self.config;
        let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias");
        self.loader.relative_bias(&name, BiasShape { buckets, max_distance, heads, direction }, reach)
    }
}
