use candle_core::{Result, Tensor};

use super::residual::add;
use crate::kernels::{
    linear::{Activation, Epilogue, Gate, LinearMap},
    norm::Norm,
    pool::ComputePool,
};

/// How the inner layer of an MLP is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpShape {
    /// `activation(x W)`.
    Plain(Activation),
    /// `activation(x Wg) * (x Wu)`.
    Gated(Activation),
}

impl MlpShape {
    /// What the inner map's outputs go through in one call with it.
    pub(super) fn epilogue(self) -> Epilogue {
        match self {
            MlpShape::Plain(activation) => Epilogue::Activated(activation),
            MlpShape::Gated(activation) => Epilogue::Gated(activation),
        }
    }

    /// The same as an op of its own.
    pub(super) fn gate(self, pool: ComputePool) -> Gate {
        match self {
            MlpShape::Plain(activation) => Gate::activation(activation, pool),
            MlpShape::Gated(activation) => Gate::gated(activation, pool),
        }
    }
}

/// Norm, one or two maps and their activation in one call, output map, a norm after it in some models, residual.
#[derive(Debug)]
pub struct Mlp {
    /// Before the maps.
    pub norm: Norm,
    /// `(rows, hidden) -> (rows, inner)`, activation and gate included unless `gate` is there.
    pub inner: LinearMap,
    /// The activation as an op of its own, where gradients go back through it.
    pub gate: Option<Gate>,
    /// `(rows, inner) -> (rows, hidden)`.
    pub out: LinearMap,
    /// Of what is added to the residual stream.
    pub after: Option<Norm>,
}

impl Mlp {
    /// `(rows, hidden) -> (rows, hidden)`
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let mut inner = self.inner.forward(&self.norm.forward(hidden)?)?; // (rows, inner)
        if let Some(gate) = &self.gate {
            inner = gate.forward(&inner)?;
        }
        add(hidden, &self.out, &inner, self.after.as_ref())
    }
}
