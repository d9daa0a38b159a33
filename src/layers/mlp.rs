use candle_core::{Result, Tensor};

use crate::kernels::{
    gated::{Activation, activate, gate},
    linear::Linear,
    norm::Norm,
    pool::ComputePool,
};

/// How the inner layer of an MLP is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpShape {
    /// `relu(x W)`.
    Relu,
    /// `activation(x W)`.
    Plain(Activation),
    /// `activation(x Wg) * (x Wu)`.
    Gated(Activation),
}

/// Norm, one or two maps in one call, activation, output map, a norm after it in some models, residual.
#[derive(Debug)]
pub struct Mlp {
    /// Before the maps.
    pub norm: Norm,
    /// `(rows, hidden) -> (rows, inner)`, or `[gate; up]` when gated.
    pub inner: Linear,
    /// The activation.
    pub shape: MlpShape,
    /// `(rows, inner) -> (rows, hidden)`.
    pub out: Linear,
    /// Of what is added to the residual stream.
    pub after: Option<Norm>,
    /// Where the activation is computed.
    pub pool: ComputePool,
}

impl Mlp {
    /// `(rows, hidden) -> (rows, hidden)`
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let inner = self.inner.forward(&self.norm.forward(hidden)?)?;
        let inner = match self.shape {
            MlpShape::Relu => inner.relu()?,
            MlpShape::Plain(activation) => activate(&inner, activation, &self.pool)?,
            MlpShape::Gated(activation) => gate(&inner, activation, &self.pool)?,
        };
        let out = self.out.forward(&inner)?;
        match &self.after {
            None => hidden + out,
            Some(norm) => hidden + norm.forward(&out)?,
        }
    }
}
