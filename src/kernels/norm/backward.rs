//! The gradient of a norm's input. Its weights are frozen.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

use super::{CHUNK, Norm};
use crate::kernels::{contiguous::values, pool::TileGrid, simd};

impl Norm {
    /// `x` `(.., d)` and the gradient of the output to that of `x`.
    pub(super) fn input_gradient(&self, x: &Tensor, gradient: &Tensor) -> candle_core::Result<Tensor> {
        x.apply_op2_no_bwd(&gradient.contiguous()?, &NormBackward(self))
    }

    /// One row: from the input and the gradient of the output, in `gradient`, to the gradient of the input, in place.
    pub(in crate::kernels) fn turn_back(&self, x: &[f32], gradient: &mut [f32]) {
        let (weight, eps) = (&self.weight[..], self.eps);
        if self.bias.is_none() {
            simd::widest!(rms(x: &[f32], gradient: &mut [f32], weight: &[f32], eps: f32));
        } else {
            simd::widest!(layer(x: &[f32], gradient: &mut [f32], weight: &[f32], eps: f32));
        }
    }
}

/// With `i = 1 / sqrt(mean(x^2) + eps)` and `g = dy * w`: `dx = i (g - x i^2 mean(g x))`.
#[inline(always)]
fn rms(x: &[f32], gradient: &mut [f32], weight: &[f32], eps: f32) {
    let width = x.len() as f32;
    let inverse = 1.0 / (simd::dot(x, x) / width + eps).sqrt();
    gradient.iter_mut().zip(weight).for_each(|(gradient, weight)| *gradient *= weight);
    let share = simd::dot(gradient, x) / width * inverse * inverse;
    for (gradient, x) in gradient.iter_mut().zip(x) {
        *gradient = inverse * (*gradient - x * share);
    }
}

/// With `i` and `g` as above of `c = x - mean(x)`: `dx = i (g - mean(g) - c i^2 mean(g c))`.
#[inline(always)]
fn layer(x: &[f32], gradient: &mut [f32], weight: &[f32], eps: f32) {
    let width = x.len() as f32;
    let mean = simd::sum(x) / width;
    gradient.iter_mut().zip(weight).for_each(|(gradient, weight)| *gradient *= weight);
    let (mut squares, mut products) = (0.0, 0.0);
    for (x, gradient) in x.iter().zip(&*gradient) {
        squares += (x - mean) * (x - mean);
        products += (x - mean) * gradient;
    }
    let inverse = 1.0 / (squares / width + eps).sqrt();
    let (mean_gradient, share) = (simd::sum(gradient) / width, products / width * inverse * inverse);
    for (gradient, x) in gradient.iter_mut().zip(x) {
        *gradient = inverse * (*gradient - mean_gradient - (x - mean) * share);
    }
}

/// `(rows, d), (rows, d) -> (rows, d)`
struct NormBackward<'a>(&'a Norm);

impl CustomOp2 for NormBackward<'_> {
    fn name(&self) -> &'static str {
        "norm-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = values(self.name(), x, x_layout)?;
        let mut out = values(self.name(), gradient, gradient_layout)?.to_vec();
        let width = self.0.width();
        let rows = x.len() / width;
        let grid = TileGrid { rows, columns: width, tile_rows: (CHUNK / width).max(1), tile_columns: width };
        self.0.pool.for_each_tile(&mut out, grid, |mut tile| {
            for row in tile.rows() {
                self.0.turn_back(&x[row * width..(row + 1) * width], tile.row_mut(row, 0..width));
            }
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}
