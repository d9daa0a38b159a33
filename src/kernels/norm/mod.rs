//! Root-mean-square norm: no mean, no bias.
//!
//! The squares of a row are summed in `LANES` = 32 running sums, element `i` into sum `i % LANES`, and these are added pair by
//! pair. The order is part of the op's definition: it does not depend on the batch, the threads or the machine.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::pool::{ComputePool, TileGrid};

/// Running sums of a row, enough for two vectors of the widest kind.
const LANES: usize = 32;
/// Elements that make a chunk worth a thread's while.
const CHUNK: usize = 1 << 15;

/// Why a norm could not be built or called.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RmsNormError {
    /// There are no weights.
    #[error("a norm needs at least one weight")]
    Empty,
    /// `eps` is negative or not finite, or a weight is not finite.
    #[error("{what} is {value}; the model's config or weights may be damaged")]
    Value {
        /// What holds the value.
        what: String,
        /// The value.
        value: f32,
    },
    /// A slice's length does not fit the norm.
    #[error("expected {expected} {what}, got {got}")]
    Length {
        /// What the slice holds.
        what: &'static str,
        /// Elements that fit.
        expected: usize,
        /// Elements given.
        got: usize,
    },
}

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension. A clone shares the weights.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Arc<[f32]>,
    eps: f32,
    pool: ComputePool,
}

impl RmsNorm {
    /// A norm over rows of `weight.len()` elements.
    ///
    /// # Errors
    /// When there is no weight, or a weight or `eps` is not finite, or `eps` is negative.
    pub fn new(weight: Vec<f32>, eps: f32, pool: ComputePool) -> Result<RmsNorm, RmsNormError> {
        if weight.is_empty() {
            return Err(RmsNormError::Empty);
        }
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(RmsNormError::Value { what: "eps".into(), value: eps });
        }
        if let Some(index) = weight.iter().position(|value| !value.is_finite()) {
            return Err(RmsNormError::Value { what: format!("weight {index}"), value: weight[index] });
        }
        Ok(RmsNorm { weight: weight.into(), eps, pool })
    }

    /// Elements in a row.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// Normalises `x` (.., d) f32, contiguous, to the same shape.
    ///
    /// # Errors
    /// When `x` is not f32, not contiguous, not on the CPU or its last dimension is not `d`.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.apply_op1(self.clone())
    }

    /// Normalises the rows of `x` (rows, d) into `out` (rows, d).
    ///
    /// # Errors
    /// When a slice's length does not fit.
    pub fn forward_rows(&self, x: &[f32], out: &mut [f32]) -> Result<(), RmsNormError> {
        let width = self.width();
        if !x.len().is_multiple_of(width) {
            return Err(RmsNormError::Length {
                what: "activations in a row",
                expected: width,
                got: x.len() % width,
            });
        }
        if out.len() != x.len() {
            return Err(RmsNormError::Length { what: "outputs", expected: x.len(), got: out.len() });
        }
        let rows = x.len() / width;
        let grid = TileGrid { rows, columns: width, tile_rows: (CHUNK / width).max(1), tile_columns: width };
        self.pool.for_each_tile(out, grid, |mut tile| {
            for row in tile.rows() {
                normalise(
                    &x[row * width..(row + 1) * width],
                    &self.weight,
                    self.eps,
                    tile.row_mut(row, 0..width),
                );
            }
        });
        Ok(())
    }
}

/// One row of the op.
fn normalise(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let inverse = 1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * inverse * weight;
    }
}

/// The sum of the squares in the order that the module's documentation fixes.
fn sum_of_squares(x: &[f32]) -> f32 {
    let (whole, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in whole {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += x * x;
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("rms-norm: the input must be contiguous; call .contiguous() on it first");
        };
        if layout.dims().last() != Some(&self.width()) {
            candle_core::bail!(
                "rms-norm: the input's last dimension must be {}, its shape is {:?}",
                self.width(),
                layout.shape()
            );
        }
        let x = &storage.as_slice::<f32>()?[start..end];
        let mut out = vec![0.0; x.len()];
        self.forward_rows(x, &mut out).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}
