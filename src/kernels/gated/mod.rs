//! The activation of an MLP, plain or gated: `activation(gate) * up` on rows that hold gate and up side by side.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::{
    pool::{ComputePool, TileGrid},
    simd,
};

#[cfg(test)]
mod tests;

/// The gate's activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, transformers' `gelu_new`.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
}

impl Activation {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        // 0.5 (1 + tanh(z)) is sigmoid(2 z).
        const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
        let z = match self {
            Self::GeluTanh => TWICE_SQRT_2_OVER_PI * (0.044_715 * x * x).mul_add(x, x),
            Self::Silu => x,
        };
        x / (1.0 + simd::exp(-z))
    }
}

/// `activation(gate) * up` for rows `[gate; up]`: `(rows, 2 n) -> (rows, n)`.
///
/// # Errors
/// When `x` is not a contiguous f32 matrix of an even width.
pub fn gate(x: &Tensor, activation: Activation, pool: &ComputePool) -> candle_core::Result<Tensor> {
    x.apply_op1_no_bwd(&Gate { activation, pool })
}

/// `activation(x)`, element by element: `(rows, n)` to the same.
///
/// # Errors
/// When `x` is not a contiguous f32 matrix.
pub fn activate(x: &Tensor, activation: Activation, pool: &ComputePool) -> candle_core::Result<Tensor> {
    x.apply_op1_no_bwd(&Activate { activation, pool })
}

struct Gate<'a> {
    activation: Activation,
    pool: &'a ComputePool,
}

impl CustomOp1 for Gate<'_> {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let Some((start, end)) = layout.contiguous_offsets().filter(|_| width.is_multiple_of(2)) else {
            candle_core::bail!("gate takes a contiguous matrix of an even width, found {layout:?}")
        };
        let x = &storage.as_slice::<f32>()?[start..end];
        let half = width / 2;
        let mut out = vec![0f32; rows * half]; // (rows, n)
        let activation = self.activation;
        let grid = TileGrid { rows, columns: half, tile_rows: 8, tile_columns: half };
        self.pool.for_each_tile(&mut out, grid, |mut tile| {
            for row in tile.rows() {
                let out = tile.row_mut(row, 0..half);
                let x = &x[row * width..(row + 1) * width];
                simd::widest!(gate_row(x: &[f32], activation: Activation, out: &mut [f32]));
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((rows, half))))
    }
}

struct Activate<'a> {
    activation: Activation,
    pool: &'a ComputePool,
}

impl CustomOp1 for Activate<'_> {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("activate takes a contiguous matrix, found {layout:?}")
        };
        let x = &storage.as_slice::<f32>()?[start..end];
        let mut out = vec![0f32; x.len()]; // (rows, n)
        let activation = self.activation;
        let grid = TileGrid { rows, columns: width, tile_rows: 8, tile_columns: width };
        self.pool.for_each_tile(&mut out, grid, |mut tile| {
            for row in tile.rows() {
                let out = tile.row_mut(row, 0..width);
                let x = &x[row * width..(row + 1) * width];
                simd::widest!(activate_row(x: &[f32], activation: Activation, out: &mut [f32]));
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

#[inline(always)]
fn activate_row(x: &[f32], activation: Activation, out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = activation.apply(x);
    }
}

#[inline(always)]
fn gate_row(x: &[f32], activation: Activation, out: &mut [f32]) {
    let (gate, up) = x.split_at(out.len());
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = activation.apply(gate) * up;
    }
}
