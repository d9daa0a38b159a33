//! The norms of transformer blocks: root-mean-square (no mean, no bias) and layer norm.
//!
//! A row is summed in `LANES` = 32 running sums, element `i` into sum `i % LANES`, and these are added pair by pair. The
//! order is part of the op's definition: it does not depend on the batch, the threads or the machine.

mod backward;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod device_tests;
#[cfg(any(test, feature = "cuda"))]
mod plan;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::{mem::MaybeUninit, sync::Arc};

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::{
    Place,
    pool::{ComputePool, TileGrid},
    simd,
};

/// Running sums of a row, enough for two vectors of the widest kind.
const LANES: usize = 32;
/// Elements that make a chunk worth a thread's while.
const CHUNK: usize = 1 << 15;

/// Why a norm could not be built or called.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NormError {
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

/// A norm over the last dimension. A clone shares the weights.
#[derive(Clone, Debug)]
pub struct Norm {
    weight: Arc<[f32]>,
    /// Layer norm's bias; a root-mean-square norm has none.
    bias: Option<Arc<[f32]>>,
    eps: f32,
    pool: ComputePool,
    #[cfg(feature = "cuda")]
    there: Option<cuda::DeviceNorm>,
}

impl Norm {
    /// `x / sqrt(mean(x^2) + eps) * weight` over rows of `weight.len()` elements.
    ///
    /// # Errors
    /// When there is no weight, or a weight or `eps` is not finite, or `eps` is negative.
    pub fn rms(weight: Vec<f32>, eps: f32, pool: ComputePool) -> Result<Norm, NormError> {
        check("weight", &weight, eps)?;
        Ok(Norm::with(weight, None, eps, pool))
    }

    /// `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias` over rows of `weight.len()` elements.
    ///
    /// # Errors
    /// As [`Norm::rms`], and when the bias is not finite or not as long as the weight.
    pub fn layer(weight: Vec<f32>, bias: Vec<f32>, eps: f32, pool: ComputePool) -> Result<Norm, NormError> {
        check("weight", &weight, eps)?;
        check("bias", &bias, eps)?;
        if bias.len() != weight.len() {
            return Err(NormError::Length { what: "biases", expected: weight.len(), got: bias.len() });
        }
        Ok(Norm::with(weight, Some(bias), eps, pool))
    }

    fn with(weight: Vec<f32>, bias: Option<Vec<f32>>, eps: f32, pool: ComputePool) -> Self {
        Norm {
            weight: weight.into(),
            bias: bias.map(Into::into),
            eps,
            pool,
            #[cfg(feature = "cuda")]
            there: None,
        }
    }

    /// The same norm, ready for rows at `place`: on a GPU its outputs are in the place's own numbers.
    ///
    /// # Errors
    /// When the device has no memory for the weights.
    #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "only a CUDA device has its own copy"))]
    pub fn on(mut self, place: &Place) -> candle_core::Result<Self> {
        #[cfg(feature = "cuda")]
        if place.device().is_cuda() {
            self.there = Some(cuda::DeviceNorm::new(&self, place.device(), place.dtype())?);
        }
        let _ = place;
        Ok(self)
    }

    /// Elements in a row.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// Normalises `x` (.., d) f32, contiguous, to the same shape.
    ///
    /// # Errors
    /// When `x` is not f32, not contiguous, not where the norm is, or its last dimension is not `d`.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.apply_op1(self.clone())
    }

    /// Normalises the rows of `x` (rows, d) to the same shape.
    ///
    /// # Errors
    /// When they are not whole rows.
    pub fn forward_rows(&self, x: &[f32]) -> Result<Vec<f32>, NormError> {
        let width = self.width();
        if !x.len().is_multiple_of(width) {
            return Err(NormError::Length {
                what: "activations in a row",
                expected: width,
                got: x.len() % width,
            });
        }
        let rows = x.len() / width;
        let grid = TileGrid { rows, columns: width, tile_rows: (CHUNK / width).max(1), tile_columns: width };
        // SAFETY: `normalise` writes every element of a row, and a tile is whole rows.
        Ok(unsafe {
            self.pool.fill_tiles(grid, |mut tile| {
                for row in tile.rows() {
                    self.normalise(&x[row * width..(row + 1) * width], tile.row_mut(row, 0..width));
                }
            })
        })
    }

    /// Normalises one row.
    fn normalise(&self, x: &[f32], out: &mut [MaybeUninit<f32>]) {
        let (weight, eps) = (&self.weight[..], self.eps);
        match &self.bias {
            None => simd::widest!(rms(x: &[f32], weight: &[f32], eps: f32, out: &mut [MaybeUninit<f32>])),
            Some(bias) => {
                let bias = &bias[..];
                simd::widest!(layer(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [MaybeUninit<f32>]));
            }
        }
    }

    /// Normalises one row in place.
    pub(super) fn normalise_in_place(&self, row: &mut [f32]) {
        let (weight, eps) = (&self.weight[..], self.eps);
        match &self.bias {
            None => simd::widest!(rms_in_place(row: &mut [f32], weight: &[f32], eps: f32)),
            Some(bias) => {
                let bias = &bias[..];
                simd::widest!(layer_in_place(row: &mut [f32], weight: &[f32], bias: &[f32], eps: f32));
            }
        }
    }
}

fn check(what: &str, values: &[f32], eps: f32) -> Result<(), NormError> {
    if values.is_empty() {
        return Err(NormError::Empty);
    }
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(NormError::Value { what: "eps".into(), value: eps });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(NormError::Value { what: format!("{what} {index}"), value: values[index] }),
        None => Ok(()),
    }
}

#[inline(always)]
fn rms(x: &[f32], weight: &[f32], eps: f32, out: &mut [MaybeUninit<f32>]) {
    let inverse = inverse_rms(x, eps);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        out.write(x * inverse * weight);
    }
}

#[inline(always)]
fn rms_in_place(row: &mut [f32], weight: &[f32], eps: f32) {
    let inverse = inverse_rms(row, eps);
    for (x, weight) in row.iter_mut().zip(weight) {
        *x = *x * inverse * weight;
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of(x, |x| x * x) / x.len() as f32 + eps).sqrt()
}

#[inline(always)]
fn layer(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [MaybeUninit<f32>]) {
    let (mean, inverse) = moments(x, eps);
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        out.write((x - mean) * inverse * weight + bias);
    }
}

#[inline(always)]
fn layer_in_place(row: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let (mean, inverse) = moments(row, eps);
    for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
        *x = (*x - mean) * inverse * weight + bias;
    }
}

/// The mean, and the inverse of the standard deviation.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let mean = sum_of(x, |x| x) / x.len() as f32;
    let variance = sum_of(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// The sum of `term` over a row, in the order that the module's documentation fixes.
#[inline(always)]
fn sum_of(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let (whole, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in whole {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += term(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += term(*x);
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

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("norm: the input must be contiguous; call .contiguous() on it first");
        };
        if layout.dims().last() != Some(&self.width()) {
            candle_core::bail!(
                "norm: the input's last dimension must be {}, its shape is {:?}",
                self.width(),
                layout.shape()
            );
        }
        let x = &storage.as_slice::<f32>()?[start..end];
        let out = self.forward_rows(x).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        cuda::forward(self, storage, layout)
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.input_gradient(x, gradient).map(Some)
    }
}
