//! Makes a decoder from its checkpoint.

use candle_core::Tensor;

use super::{Decoder, DecoderConfig, Positions};
use crate::{
    kernels::{
        dept_embed::PlacedTable,
        linear::LinearMap,
        norm::Norm,
        rope::{HeadNorms, RopeTable},
        soft_cap::SoftCap,
    },
    layers::{CausalAttention, DecoderBlock, LoadError, Loader, Mlp, Part, Rotary},
};

/// Builds the whole model for positions below `reach`.
pub(super) fn decoder(
    loader: &Loader<'_>,
    config: DecoderConfig,
    reach: usize,
) -> Result<Decoder, LoadError> {
    let turns = match &config.positions {
        Positions::Learned => None,
        Positions::Rotary { global, local } => {
            Some([loader.rope(global, reach)?, loader.rope(local, reach)?])
        }
    };
    let build = Builder { loader, config: &config, turns };
    Ok(Decoder {
        // First, while little else is there: where maps are read whole (for a device, in training), this one takes most.
        head: build.head()?,
        table: build.table()?,
        positions: build.positions()?,
        blocks: (0..config.layers()).map(|index| build.block(index)).collect::<Result<_, _>>()?,
        norm: build.norm(&format!("{}{}", config.names.prefix, config.names.norm), config.hidden)?,
        cap: config.soft_caps.logits.map(|cap| SoftCap::new(cap, loader.pool.clone())),
        place: loader.place.clone(),
        pool: loader.pool.clone(),
        config,
    })
}

struct Builder<'a> {
    loader: &'a Loader<'a>,
    config: &'a DecoderConfig,
    /// In blocks that see all, and in blocks with a window.
    turns: Option<[RopeTable; 2]>,
}

impl Builder<'_> {
    fn table_name(&self) -> String {
        format!("{}{}", self.config.names.prefix, self.config.names.table)
    }

    fn table(&self) -> Result<PlacedTable, LoadError> {
        let shape = (self.config.vocab, self.config.hidden);
        self.loader.embedding(&self.table_name(), shape, self.config.embedding_scale)
    }

    fn positions(&self) -> Result<Option<Tensor>, LoadError> {
        if self.config.positions != Positions::Learned {
            return Ok(None);
        }
        let name = format!("{}{}", self.config.names.prefix, self.config.names.positions);
        self.loader.rows(&name, self.config.max_positions, self.config.hidden).map(Some)
    }

    fn head(&self) -> Result<LinearMap, LoadError> {
        let (vocab, hidden) = (self.config.vocab, self.config.hidden);
        if self.config.tied {
            self.loader.tied_head(&self.table_name(), vocab, hidden)
        } else {
            self.loader.head("lm_head", vocab, hidden)
        }
    }

    fn norm(&self, module: &str, width: usize) -> Result<Norm, LoadError> {
        self.loader.norm(module, width, self.config.norm)
    }

    fn block(&self, index: usize) -> Result<DecoderBlock, LoadError> {
        let names = &self.config.names;
        let at = format!("{}{}.{index}.", names.prefix, names.blocks);
        Ok(DecoderBlock { attention: self.attention(&at, self.config.windows[index])?, mlp: self.mlp(&at)? })
    }

    fn attention(&self, at: &str, window: Option<usize>) -> Result<CausalAttention, LoadError> {
        let DecoderConfig { hidden, heads, names, biases, .. } = self.config;
        let part = |name, n, bias, stored| Part { name, n, bias, stored };
        let qkv: Vec<Part<'_>> = match names.qkv {
            &[q, k, v] => vec![
                part(q, heads.query_width(), biases.qkv, names.query_key_stored),
                part(k, heads.kv_width(), biases.qkv, names.query_key_stored),
                part(v, heads.kv_width(), biases.qkv, names.stored),
            ],
            fused => {
                let width = heads.query_width() + 2 * heads.kv_width();
                fused.iter().map(|name| part(*name, width, biases.qkv, names.stored)).collect()
            }
        };
        let out = part(names.out, *hidden, biases.out, names.stored);
        Ok(CausalAttention {
            norm: self.norm(&format!("{at}{}", names.attention_norm), *hidden)?,
            qkv: self.loader.packed(at, &qkv, *hidden)?,
            rotary: self.rotary(at, window)?,
            window,
            out: self.loader.packed(at, &[out], heads.query_width())?,
            after: self.after(at, names.after_attention)?,
        })
    }

    fn rotary(&self, at: &str, window: Option<usize>) -> Result<Option<Rotary>, LoadError> {
        let Some([global, local]) = &self.turns else { return Ok(None) };
        let names = &self.config.names;
        let norm = |name| self.norm(&format!("{at}{name}"), self.config.heads.dim);
        let norms = match self.config.head_norms {
            true => Some(HeadNorms { query: norm(names.query_norm)?, key: norm(names.key_norm)? }),
            false => None,
        };
        let table = if window.is_some() { local } else { global };
        Ok(Some(Rotary { table: table.clone(), norms }))
    }

    /// The norm of what is added to the residual stream, where the model has it.
    fn after(&self, at: &str, name: &str) -> Result<Option<Norm>, LoadError> {
        let norm = || self.norm(&format!("{at}{name}"), self.config.hidden);
        self.config.after_norms.then(norm).transpose()
    }

    fn mlp(&self, at: &str) -> Result<Mlp, LoadError> {
        let DecoderConfig { hidden, inner, names, biases, .. } = self.config;
        let part = |name, n| Part { name, n, bias: biases.mlp, stored: names.stored };
        let parts: Vec<Part<'_>> = names.inner.iter().map(|name| part(*name, *inner)).collect();
        let (activated, gate) = self.loader.mlp_inner(at, &parts, *hidden, self.config.mlp)?;
        Ok(Mlp {
            norm: self.norm(&format!("{at}{}", names.mlp_norm), *hidden)?,
            inner: activated,
            gate,
            out: self.loader.packed(at, &[part(names.mlp_out, *hidden)], *inner)?,
            after: self.after(at, names.after_mlp)?,
        })
    }
}
