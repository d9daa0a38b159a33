//! Sums of the residual stream, which is in f32 wherever a model computes.

use candle_core::{DType, Result, Tensor};

use crate::kernels::{linear::LinearMap, norm::Norm};

/// `hidden + norm(map(x))`, where there is a norm. `(rows, hidden), (rows, k) -> (rows, hidden)`
pub(super) fn add(hidden: &Tensor, map: &LinearMap, x: &Tensor, norm: Option<&Norm>) -> Result<Tensor> {
    match norm {
        None => map.forward_onto(x, hidden),
        Some(norm) => hidden + norm.forward(&map.forward(x)?.to_dtype(DType::F32)?)?,
    }
}
