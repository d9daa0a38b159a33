use candle_core::{Result, Tensor};

use crate::{
    kernels::{
        RowIndices,
        linear::LinearMap,
        norm::Norm,
        ragged_attention::{Attention, write_key_values},
        rope::{HeadNorms, PrepareHeads, RopeTable},
    },
    layers::{Mlp, residual::add},
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
    pub qkv: LinearMap,
    /// What happens to q and k; `None` where positions are added to the embeddings.
    pub rotary: Option<Rotary>,
    /// A row sees only the last so many positions; `None` sees all.
    pub window: Option<usize>,
    /// `(rows, heads * dim) -> (rows, hidden)`.
    pub out: LinearMap,
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
    pub positions: &'a RowIndices,
    /// The slab row that takes its K/V.
    pub slots: &'a RowIndices,
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

    /// Runs whole sequences through the block, whose rows attend to each other and to no slab. `(rows, hidden) -> (rows, hidden)`
    ///
    /// # Errors
    /// When shapes or positions do not fit.
    pub fn among_rows(
        &self,
        hidden: &Tensor,
        attention: &Attention<'_>,
        positions: &RowIndices,
    ) -> Result<Tensor> {
        let qkv = self.attention.project(hidden, attention, positions)?; // (rows, [q; k; v])
        let attention = Attention { window: self.attention.window, ..*attention };
        let attended = attention.among_rows(&qkv)?; // (rows, heads * dim)
        self.mlp.forward(&self.attention.add(hidden, &attended)?)
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
        let qkv = self.project(hidden, attention, places.positions)?; // (rows, [q; k; v])
        write_key_values(slab, &qkv, places.slots)?;
        let attention = Attention { window: self.window, ..*attention };
        self.add(hidden, &attention.over_slab(&qkv, slab)?)
    }

    /// Norm, projections, norms and turns of heads. `(rows, hidden) -> (rows, [q; k; v])`
    fn project(&self, hidden: &Tensor, attention: &Attention<'_>, positions: &RowIndices) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm.forward(hidden)?)?; // (rows, [q; k; v])
        let Some(rotary) = &self.rotary else { return Ok(qkv) };
        let heads = PrepareHeads {
            heads: attention.heads,
            norms: rotary.norms.as_ref(),
            rope: &rotary.table,
            positions,
            pool: attention.pool,
        };
        heads.forward(qkv)
    }

    /// Output map, norm after it, residual. `(rows, hidden), (rows, heads * dim) -> (rows, hidden)`
    fn add(&self, hidden: &Tensor, attended: &Tensor) -> Result<Tensor> {
        add(hidden, &self.out, attended, self.after.as_ref())
    }
}
