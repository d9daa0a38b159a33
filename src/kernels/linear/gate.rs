//! An MLP's activation as an op of its own, where gradients go back through it. In inference it is part of the map before it
//! ([`Epilogue::Gated`](super::Epilogue::Gated)); both give the same bits.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};

use super::activation::{Activation, exp, gelu_tanh, silu};
use crate::kernels::{
    contiguous::values,
    pool::{ComputePool, TileGrid},
};

/// Elements that make a chunk worth a thread's while.
const CHUNK: usize = 1 << 14;

/// `activation(z)`, or `activation(gate) * up` where `z` is `[gate; up]`.
#[derive(Debug, Clone)]
pub struct Gate {
    activation: Activation,
    gated: bool,
    pool: ComputePool,
}

impl Gate {
    /// `(rows, n) -> (rows, n)`
    pub fn activation(activation: Activation, pool: ComputePool) -> Self {
        Self { activation, gated: false, pool }
    }

    /// `(rows, [gate; up]) -> (rows, n)`
    pub fn gated(activation: Activation, pool: ComputePool) -> Self {
        Self { activation, gated: true, pool }
    }

    /// Applies it to contiguous f32 rows.
    ///
    /// # Errors
    /// When `z` is not f32, not contiguous or not of rows of the right width.
    pub fn forward(&self, z: &Tensor) -> candle_core::Result<Tensor> {
        z.apply_op1(self.clone())
    }

    /// Outputs a row, of `width` inputs.
    fn outputs(&self, width: usize) -> usize {
        if self.gated { width / 2 } else { width }
    }

    fn check(&self, layout: &Layout) -> candle_core::Result<(usize, usize)> {
        let (rows, width) = layout.shape().dims2()?;
        if width == 0 || (self.gated && !width.is_multiple_of(2)) {
            candle_core::bail!("gate: rows of {width} columns can't be halved");
        }
        Ok((rows, width))
    }
}

impl CustomOp1 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width) = self.check(layout)?;
        let z = values(self.name(), storage, layout)?;
        let n = self.outputs(width);
        let mut out = vec![0f32; rows * n];
        let grid = TileGrid { rows, columns: n, tile_rows: (CHUNK / n).max(1), tile_columns: n };
        self.pool.for_each_tile(&mut out, grid, |mut tile| {
            for row in tile.rows() {
                let (gate, up) = z[row * width..(row + 1) * width].split_at(n);
                let out = tile.row_mut(row, 0..n);
                out.iter_mut().zip(gate).for_each(|(out, gate)| *out = value(self.activation, *gate));
                out.iter_mut().zip(up).for_each(|(out, up)| *out *= up);
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((rows, n))))
    }

    fn bwd(&self, z: &Tensor, _out: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        z.apply_op2_no_bwd(&gradient.contiguous()?, &GateBackward(self)).map(Some)
    }
}

/// `(rows, width), (rows, n) -> (rows, width)`
struct GateBackward<'a>(&'a Gate);

impl CustomOp2 for GateBackward<'_> {
    fn name(&self) -> &'static str {
        "gate-backward"
    }

    fn cpu_fwd(
        &self,
        z: &CpuStorage,
        z_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let Gate { activation, gated, ref pool } = *self.0;
        let (rows, width) = self.0.check(z_layout)?;
        let z = values(self.name(), z, z_layout)?;
        let gradient = values(self.name(), gradient, gradient_layout)?;
        let n = self.0.outputs(width);
        let mut out = vec![0f32; rows * width];
        let grid = TileGrid { rows, columns: width, tile_rows: (CHUNK / width).max(1), tile_columns: width };
        pool.for_each_tile(&mut out, grid, |mut tile| {
            for row in tile.rows() {
                let (gate, up) = z[row * width..(row + 1) * width].split_at(n);
                let gradient = &gradient[row * n..(row + 1) * n];
                let (to_gate, to_up) = tile.row_mut(row, 0..width).split_at_mut(n);
                for (i, to_gate) in to_gate.iter_mut().enumerate() {
                    let above = if gated { gradient[i] * up[i] } else { gradient[i] };
                    *to_gate = above * slope(activation, gate[i]);
                }
                for (i, to_up) in to_up.iter_mut().enumerate() {
                    *to_up = gradient[i] * value(activation, gate[i]);
                }
            }
        });
        Ok((CpuStorage::F32(out), z_layout.shape().clone()))
    }
}

#[inline(always)]
fn value(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::GeluTanh => gelu_tanh(x),
        Activation::Silu => silu(x),
    }
}

/// The derivative at `x`; 0 at relu's corner.
#[inline(always)]
fn slope(activation: Activation, x: f32) -> f32 {
    /// `2 * sqrt(2 / pi)`, and 0.044715 of it three times.
    const LINEAR: f32 = 1.595_769_2;
    const CUBIC: f32 = 0.071_354_814;
    let swish = |u: f32, du: f32| {
        let sigmoid = 1.0 / (1.0 + exp(-u));
        sigmoid + x * sigmoid * (1.0 - sigmoid) * du
    };
    match activation {
        Activation::Relu => {
            if x > 0.0 {
                1.0
            } else {
                0.0
            }
        }
        Activation::GeluTanh => swish(x * (LINEAR + CUBIC * (x * x)), LINEAR + 3.0 * CUBIC * (x * x)),
        Activation::Silu => swish(x, 1.0),
    }
}
