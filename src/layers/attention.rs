use candle_core::{Result, Tensor};

use crate::kernels::{
    RowIndices,
    linear::LinearMap,
    norm::Norm,
    ragged_attention::{Attention, write_key_values},
};

/// Norm, q, k and v in one map, attention, output map, residual.
#[derive(Debug)]
pub struct SelfAttention {
    /// Before the projections.
    pub norm: Norm,
    /// `(rows, hidden) -> (rows, [q; k; v])`.
    pub qkv: LinearMap,
    /// `(rows, heads * dim) -> (rows, hidden)`.
    pub out: LinearMap,
}

impl SelfAttention {
    /// Every row attends to its own sequence's rows. `(rows, hidden) -> (rows, hidden)`
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn among_rows(&self, hidden: &Tensor, attention: &Attention<'_>) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm.forward(hidden)?)?; // (rows, [q; k; v])
        self.out.forward_onto(&attention.among_rows(&qkv)?, hidden)
    }

    /// Appends the rows' K/V to the slab at `slots`, then every row attends to its sequence's past.
    /// `(rows, hidden) -> (rows, hidden)`
    ///
    /// # Errors
    /// When shapes or slots do not fit.
    pub fn cached(
        &self,
        hidden: &Tensor,
        attention: &Attention<'_>,
        slab: &Tensor,
        slots: &RowIndices,
    ) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm.forward(hidden)?)?; // (rows, [q; k; v])
        write_key_values(slab, &qkv, slots)?;
        self.out.forward_onto(&attention.over_slab(&qkv, slab)?, hidden)
    }
}

/// Attention of a decoder's rows to what the encoder made of the prompt.
#[derive(Debug)]
pub struct CrossAttention {
    /// Before the query projection.
    pub norm: Norm,
    /// `(rows, hidden) -> (rows, heads * dim)`.
    pub query: LinearMap,
    /// `(rows, hidden) -> (rows, [k; v])`, on the encoder's output, once a sequence.
    pub key_value: LinearMap,
    /// `(rows, heads * dim) -> (rows, hidden)`.
    pub out: LinearMap,
}

impl CrossAttention {
    /// Computes K/V of the encoder's output `(rows, hidden)` into the slab at `slots`.
    ///
    /// # Errors
    /// When shapes or slots do not fit.
    pub fn write(&self, encoded: &Tensor, slab: &Tensor, slots: &RowIndices) -> Result<()> {
        write_key_values(slab, &self.key_value.forward(encoded)?, slots)
    }

    /// Every row attends to its sequence's prompt in the slab. `(rows, hidden) -> (rows, hidden)`
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, hidden: &Tensor, attention: &Attention<'_>, slab: &Tensor) -> Result<Tensor> {
        let q = self.query.forward(&self.norm.forward(hidden)?)?; // (rows, heads * dim)
        self.out.forward_onto(&attention.over_slab(&q, slab)?, hidden)
    }

    /// Every row attends to its sequence's prompt among the encoder's own rows `encoded`, whose K/V are computed and not kept.
    /// `(rows, hidden), (prompt rows, hidden) -> (rows, hidden)`
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn among_rows(&self, hidden: &Tensor, encoded: &Tensor, attention: &Attention<'_>) -> Result<Tensor> {
        let q = self.query.forward(&self.norm.forward(hidden)?)?; // (rows, heads * dim)
        let kv = self.key_value.forward(encoded)?; // (prompt rows, [k; v])
        self.out.forward_onto(&attention.over_rows(&q, &kv)?, hidden)
    }
}
