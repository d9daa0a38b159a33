//! The way back through a frozen map: the gradient of its input, `dx = dy W`, and nothing of the weights.
//!
//! It is itself a linear map, the transpose, packed beside the forward one, so that every kernel that makes inference fast
//! makes training fast. 8-bit weights stay on their grid: their scales go into `dy`, which is then rounded by row to 15 bits.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{
    ActivationBits, ComputePool, Epilogue, Linear, LinearError, LinearPart, LinearShape, LinearWeights,
};
use crate::kernels::contiguous;

/// The transpose of a map.
#[derive(Debug)]
pub(super) struct Backward {
    /// `(rows, n) -> (rows, k)`
    transposed: Linear,
    /// What `dy` is multiplied with first, an output each: the scales of 8-bit weights.
    scales: Option<Vec<f32>>,
}

impl Linear {
    /// As [`Linear::concat`], for training: gradients go back to the input. Takes twice the memory.
    ///
    /// # Errors
    /// As [`Linear::concat`].
    pub fn differentiable(parts: Vec<LinearPart>, pool: ComputePool) -> Result<Linear, LinearError> {
        let whole = LinearPart::stack(parts, Epilogue::Plain)?;
        let backward = Backward::of(&whole, pool.clone())?;
        let mut linear = Linear::pack(vec![whole], Epilogue::Plain, pool)?;
        linear.backward = Some(Arc::new(backward));
        Ok(linear)
    }

    /// The gradient of the input from that of the output: `(rows, n) -> (rows, k)`.
    pub(super) fn input_gradient(&self, gradient: &Tensor) -> candle_core::Result<Tensor> {
        let Some(backward) = &self.backward else {
            candle_core::bail!(
                "linear: this map was loaded for inference, gradients can't go back through it"
            );
        };
        backward.apply(&gradient.contiguous()?)
    }
}

impl Backward {
    fn of(part: &LinearPart, pool: ComputePool) -> Result<Backward, LinearError> {
        let LinearShape { n, k } = part.shape;
        let (weights, scales) = match &part.weights {
            LinearWeights::F32 { values } => (LinearWeights::F32 { values: transpose(values, k) }, None),
            LinearWeights::F16 { values } => (LinearWeights::F16 { values: transpose(values, k) }, None),
            LinearWeights::Bf16 { values } => (LinearWeights::Bf16 { values: transpose(values, k) }, None),
            LinearWeights::I8 { values, scales, .. } => {
                let values = transpose(values, k);
                let activations = ActivationBits::Fifteen;
                (LinearWeights::I8 { values, scales: vec![1.0; k], activations }, Some(scales.clone()))
            }
            // A block's scale is shared along k, which is the transpose's outputs: in f32 there is nothing to share.
            weights @ (LinearWeights::Blocks { .. } | LinearWeights::Nibbles { .. }) => {
                (LinearWeights::F32 { values: transpose(&weights.widen(k), k) }, None)
            }
        };
        let transposed = Linear::new(LinearShape { n: k, k: n }, weights, None, pool)?;
        Ok(Backward { transposed, scales })
    }

    fn apply(&self, gradient: &Tensor) -> candle_core::Result<Tensor> {
        let Some(scales) = &self.scales else { return self.transposed.forward(gradient) };
        let mut scaled = contiguous::read("linear", gradient, |values| Ok(values.to_vec()))?;
        for row in scaled.chunks_exact_mut(scales.len()) {
            row.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
        }
        self.transposed.forward(&Tensor::from_vec(scaled, gradient.shape(), &Device::Cpu)?)
    }
}

/// `(n, k)` to `(k, n)`, in squares that stay in the cache.
fn transpose<T: Copy + Default>(values: &[T], k: usize) -> Vec<T> {
    const SIDE: usize = 32;
    let n = values.len() / k;
    let mut out = vec![T::default(); values.len()];
    for top in (0..n).step_by(SIDE) {
        for left in (0..k).step_by(SIDE) {
            for row in top..n.min(top + SIDE) {
                for column in left..k.min(left + SIDE) {
                    out[column * n + row] = values[row * k + column];
                }
            }
        }
    }
    out
}
