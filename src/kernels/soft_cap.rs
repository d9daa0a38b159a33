//! A soft cap on logits (Gemma 2): `cap * tanh(x / cap)`.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::{
    contiguous::values,
    pool::{ComputePool, TileGrid},
    simd,
};

/// Elements that make a chunk worth a thread's while.
const CHUNK: usize = 1 << 14;

/// `cap * tanh(x / cap)`, element by element.
#[derive(Debug, Clone)]
pub struct SoftCap {
    cap: f32,
    pool: ComputePool,
}

impl SoftCap {
    /// A cap above 0.
    pub fn new(cap: f32, pool: ComputePool) -> Self {
        Self { cap, pool }
    }

    /// `(rows, n) -> (rows, n)`, contiguous; f32 on the CPU, and f32 of any format on a device: in 16 bits neighbours near the
    /// cap would become one.
    ///
    /// # Errors
    /// When `x` is another kind of tensor.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() {
            return x.apply_op1(self.clone());
        }
        let cap = f64::from(self.cap);
        (x.to_dtype(DType::F32)? / cap)?.tanh()? * cap
    }
}

impl CustomOp1 for SoftCap {
    fn name(&self) -> &'static str {
        "soft-cap"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(self.name(), storage, layout)?;
        let chunk = x.len().clamp(1, CHUNK);
        let grid = TileGrid { rows: 1, columns: x.len(), tile_rows: 1, tile_columns: chunk };
        let mut out = vec![0f32; x.len()];
        self.pool.for_each_tile(&mut out, grid, |mut tile| {
            let columns = tile.columns();
            let part = Part { x: &x[columns.clone()], cap: self.cap, out: tile.row_mut(0, columns) };
            simd::widest!(bend(part: Part<'_>));
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, out: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let bent = (out / f64::from(self.cap))?;
        (gradient * (1.0 - bent.sqr()?)?).map(Some)
    }
}

struct Part<'a> {
    x: &'a [f32],
    cap: f32,
    out: &'a mut [f32],
}

#[inline(always)]
fn bend(part: Part<'_>) {
    part.out.iter_mut().zip(part.x).for_each(|(out, x)| *out = simd::soft_cap(*x, part.cap));
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::kernels::miri::unless_miri;

    #[test]
    fn every_element_is_bent() {
        const WIDTH: usize = unless_miri(20_011, 71);
        let pool = ComputePool::new(std::num::NonZeroUsize::new(2).unwrap()).unwrap();
        let x: Vec<f32> = (0..3 * WIDTH).map(|i| ((i * 7919) % 20_003) as f32 / 100.0 - 100.0).collect();
        let tensor = Tensor::from_slice(&x, (3, WIDTH), &Device::Cpu).unwrap();
        let found = SoftCap::new(30.0, pool).forward(&tensor).unwrap();
        assert_eq!(found.dims(), [3, WIDTH]);
        for (x, found) in x.iter().zip(found.flatten_all().unwrap().to_vec1::<f32>().unwrap()) {
            let expected = 30.0 * (f64::from(*x) / 30.0).tanh();
            assert!((f64::from(found) - expected).abs() < 2e-5, "{x}: {found}, not {expected}");
        }
        let none = Tensor::zeros((0, 7), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(SoftCap::new(1.0, ComputePool::serial()).forward(&none).unwrap().dims(), [0, 7]);
    }
}
