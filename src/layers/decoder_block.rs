use candle_core::{Result, Tensor};

use crate::{
    kernels::{
        linear::Linear,
        norm::Norm,
        ragged_attention::{Attention, write_key_values},
        rope::{HeadNorms, PrepareHeads, RopeTable},
    },
    layers::Mlp,
};

/// The block of every decoder-only model here: attention to the own past, then an MLP, each behind a norm and added to the
/// residual stream.
#[derive(Debug)]
pub struct DecoderBlock {
    /// First half.
    pub attention: CausalAttention,
    /// Second half.
    pub mlp: Mlp,
}

/// Norm, q, k and v in one map, norms and turns of heads, attention, output map, a norm after it in some models, residual.
#[derive(Debug)]
pub struct CausalAttention {
    /// Before the projections.
    pub norm: Norm,
    /// `(rows, hidden) -> (rows, [q; k; v])`.
    pub qkv: Linear,
    /// What happens to q and k; `None` where positions are added to the embeddings.
    pub rotary: Option<Rotary>,
    /// A row sees only the last so many positions; `None` sees all.
    pub window: Option<usize>,
    /// `(rows, heads * dim) -> (rows, hidden)`.
    pub out: Linear,
    /// Of what is added to the residual stream.
    pub after: Option<Norm>,
}

/// The turns of q and k by position, and the norms before them.
#[derive(Debug)]
pub struct Rotary {
    /// The turns.
    pub table: RopeTable,
    /// By head, where the model has them.
    pub norms: Option<HeadNorms>,
}

/// Where the rows of a batch stand.
#[derive(Debug, Clone, Copy)]
pub struct RowPlaces<'a> {
    /// Each row's position in its sequence.
    pub positions: &'a [u32],
    /// The slab row that takes its K/V.
    pub slots: &'a [u32],
}

impl DecoderBlock {
    /// Appends the rows' K/V to the slab, then runs them through the block. `(rows, hidden) -> (rows, hidden)`
    ///
    /// # Errors
    /// When shapes, positions or slots do not fit.
    pub fn forward(
        &self,
        hidden: &Tensor,
        attention: &Attention<'_>,
        places: RowPlaces<'_>,
        slab: &Tensor,
    ) -> Result<Tensor> {
        self.mlp.forward(&self.attention.forward(hidden, attention, places, slab)?)
    }
}

impl CausalAttention {
    /// Keys are stored normed and turned, so that a row's attention is one walk over the slab.
    fn forward(
        &self,
        hidden: &Tensor,
        attention: &Attention<'_>,
        places: RowPlaces<'_>,
        slab: &Tensor,
    ) -> Result<Tensor> {
        let mut qkv = self.qkv.forward(&self.norm.forward(hidden)?)?; // (rows, [q; k; v])
        if let Some(rotary) = &self.rotary {
            let heads = PrepareHeads {
                heads: attention.heads,
                norms: rotary.norms.as_ref(),
                rope: &rotary.table,
                positions: places.positions,
                pool: attention.pool,
            };
            qkv = heads.forward(&qkv)?;
        }
        write_key_values(slab, &qkv, places.slots)?;
        let attention = Attention { window: self.window, ..*attention };
        let out = self.out.forward(&attention.over_slab(&qkv, slab)?)?; // (rows, hidden)
        match &self.after {
            None => hidden + out,
            Some(norm) => hidden + norm.forward(&out)?,
        }
    }
}
