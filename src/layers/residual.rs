//! Sums of the residual stream, which is in f32 wherever a model computes.

use candle_core::{DType, Result, Tensor};

use crate::kernels::norm::Norm;

/// `hidden + out`. `(rows, hidden), (rows, hidden) -> (rows, hidden)`
pub(super) fn add(hidden: &Tensor, out: &Tensor) -> Result<Tensor> {
    hidden + out.to_dtype(hidden.dtype())?
}

/// `hidden + norm(out)`, where there is a norm. `(rows, hidden), (rows, hidden) -> (rows, hidden)`
pub(super) fn add_normed(hidden: &Tensor, out: &Tensor, norm: Option<&Norm>) -> Result<Tensor> {
    match norm {
        None => add(hidden, out),
        Some(norm) => add(hidden, &norm.forward(&out.to_dtype(DType::F32)?)?),
    }
}
