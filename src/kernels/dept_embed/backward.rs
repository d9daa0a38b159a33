//! The adapter's own gradients: from those of the embedded rows to dP, dA and dB.
//!
//! A prompt row gives its gradient to its row of P. A token row with gradient `g` and delta row `i` gives
//! `scale * g B^T` to `A[i]` and `scale * A[i]^T g` to B. Rows are taken in order, so threads change no bit.

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, Result, Shape, Tensor};

use super::{AdapterSlot, EmbeddingTable, LowRankSlot, Row, RowTable, UpdateSlot, dept_embed};
use crate::kernels::{
    contiguous::{read, values},
    pool::{ComputePool, TileGrid},
    simd,
};

/// The low-rank pair of an adapter that is trained.
#[derive(Debug, Clone)]
pub struct TrainedPair {
    /// A. `(s, r)`
    pub a: Tensor,
    /// B. `(r, d)`
    pub b: Tensor,
    /// `lora_alpha / sqrt(r)`.
    pub scale: f32,
}

/// The tensors of an adapter that is trained.
#[derive(Debug, Clone)]
pub struct TrainedSlot {
    /// P. `(m, d)`
    pub prompt: Tensor,
    /// The pair; none for prompt tuning.
    pub pair: Option<TrainedPair>,
}

/// As [`dept_embed`] with one slot, whose tensors get gradients. Returns `(rows, d)`.
///
/// # Errors
/// When a row points outside the table or the slot.
pub fn dept_embed_tracked(
    table: &EmbeddingTable,
    slot: &TrainedSlot,
    rows: &RowTable,
    pool: &ComputePool,
) -> Result<Tensor> {
    let TrainedSlot { prompt, pair } = slot;
    let Some(TrainedPair { a, b, scale }) = pair else {
        let embedded = read("dept-embed", prompt, |prompt| {
            dept_embed(table, &[AdapterSlot { prompt, update: UpdateSlot::None }], rows, pool)
        })?;
        return prompt.apply_op1(Embedded { embedded, rows: rows.clone(), scale: 0.0, pool: pool.clone() });
    };
    let rank = a.dim(1)?;
    let embedded = read("dept-embed", prompt, |prompt| {
        read("dept-embed", a, |a| {
            read("dept-embed", b, |b| {
                let update = UpdateSlot::LowRank(LowRankSlot { a, b, rank, scale: *scale });
                dept_embed(table, &[AdapterSlot { prompt, update }], rows, pool)
            })
        })
    })?;
    prompt.apply_op3(a, b, Embedded { embedded, rows: rows.clone(), scale: *scale, pool: pool.clone() })
}

/// The rows that inference's own kernel has embedded, and what the way back needs.
struct Embedded {
    /// `(rows, d)`
    embedded: Tensor,
    rows: RowTable,
    scale: f32,
    pool: ComputePool,
}

impl Embedded {
    fn result(&self) -> Result<(CpuStorage, Shape)> {
        let copied = read("dept-embed", &self.embedded, |values| Ok(values.to_vec()))?;
        Ok((CpuStorage::F32(copied), self.embedded.shape().clone()))
    }

    /// dP `(m, d)`; none where m = 0.
    fn to_prompt(&self, prompt: &Tensor, gradient: &[f32]) -> Result<Option<Tensor>> {
        let (m, d) = prompt.dims2()?;
        if m == 0 {
            return Ok(None);
        }
        let mut out = vec![0f32; m * d];
        for (row, gradient) in self.rows.iter().zip(gradient.chunks_exact(d)) {
            if let Row::Prompt { index, .. } = row {
                let out = &mut out[index as usize * d..][..d];
                out.iter_mut().zip(gradient).for_each(|(out, gradient)| *out += gradient);
            }
        }
        Tensor::from_vec(out, (m, d), &Device::Cpu).map(Some)
    }

    /// The rows that have an update: (row of the batch, row of A).
    fn updated(&self) -> Vec<(usize, usize)> {
        let updated = self.rows.iter().enumerate().filter_map(|(row, what)| match what {
            Row::Token { delta: Some(delta), .. } => Some((row, delta.index as usize)),
            Row::Token { delta: None, .. } | Row::Prompt { .. } => None,
        });
        updated.collect()
    }

    /// dA `(s, r)`
    fn to_a(&self, a: &Tensor, b: &[f32], gradient: &[f32], d: usize) -> Result<Tensor> {
        let (s, r) = a.dims2()?;
        let updated = self.updated();
        let mut by_row = vec![0f32; updated.len() * r]; // (updated rows, r)
        let grid = TileGrid { rows: updated.len(), columns: r, tile_rows: 8, tile_columns: r };
        self.pool.for_each_tile(&mut by_row, grid, |mut tile| {
            for at in tile.rows() {
                let g = &gradient[updated[at].0 * d..][..d];
                let (out, scale) = (tile.row_mut(at, 0..r), self.scale);
                simd::widest!(products(out: &mut [f32], g: &[f32], b: &[f32], scale: f32));
            }
        });
        let mut out = vec![0f32; s * r];
        for (&(_, index), row) in updated.iter().zip(by_row.chunks_exact(r)) {
            out[index * r..][..r].iter_mut().zip(row).for_each(|(out, value)| *out += value);
        }
        Tensor::from_vec(out, (s, r), &Device::Cpu)
    }

    /// dB `(r, d)`
    fn to_b(&self, a: &[f32], b: &Tensor, gradient: &[f32]) -> Result<Tensor> {
        let (r, d) = b.dims2()?;
        let updated = self.updated();
        let mut out = vec![0f32; r * d];
        let grid = TileGrid { rows: r, columns: d, tile_rows: 4, tile_columns: d };
        self.pool.for_each_tile(&mut out, grid, |mut tile| {
            for &(row, index) in &updated {
                let g = &gradient[row * d..][..d];
                for j in tile.rows() {
                    let (factor, out) = (self.scale * a[index * r + j], tile.row_mut(j, 0..d));
                    simd::widest!(add_scaled(out: &mut [f32], factor: f32, g: &[f32]));
                }
            }
        });
        Tensor::from_vec(out, (r, d), &Device::Cpu)
    }
}

/// `out = scale * g . B^T`
#[inline(always)]
fn products(out: &mut [f32], g: &[f32], b: &[f32], scale: f32) {
    for (out, b) in out.iter_mut().zip(b.chunks_exact(g.len())) {
        *out = scale * simd::dot(g, b);
    }
}

/// `out += factor * g`
#[inline(always)]
fn add_scaled(out: &mut [f32], factor: f32, g: &[f32]) {
    for (out, g) in out.iter_mut().zip(g) {
        *out = factor.mul_add(*g, *out);
    }
}

impl CustomOp1 for Embedded {
    fn name(&self) -> &'static str {
        "dept-embed"
    }

    fn cpu_fwd(&self, _prompt: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.result()
    }

    fn bwd(&self, prompt: &Tensor, _out: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        read("dept-embed", gradient, |gradient| self.to_prompt(prompt, gradient))
    }
}

impl CustomOp3 for Embedded {
    fn name(&self) -> &'static str {
        "dept-embed"
    }

    fn cpu_fwd(
        &self,
        _prompt: &CpuStorage,
        _: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        _b: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        values("dept-embed", a, a_layout)?;
        self.result()
    }

    fn bwd(
        &self,
        prompt: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        read("dept-embed", gradient, |gradient| {
            let to_prompt = self.to_prompt(prompt, gradient)?;
            let to_a = read("dept-embed", b, |values| self.to_a(a, values, gradient, b.dim(1)?))?;
            let to_b = read("dept-embed", a, |values| self.to_b(values, b, gradient))?;
            Ok((to_prompt, Some(to_a), Some(to_b)))
        })
    }
}
