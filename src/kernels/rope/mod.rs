//! What happens to queries and keys between their projection and attention: a norm by head (Qwen3, Gemma 3) and the rotary
//! position embedding (Su et al. 2021), on packed rows `[q; k; v]`.
//!
//! Element `i` of a head turns together with element `i + dim / 2`, the pairing of Hugging Face checkpoints. Files that pair
//! neighbours (llama.cpp's for Llama) are brought into this order when they are read.

use std::{ops::Range, sync::Arc};

use candle_core::{CpuStorage, CustomOp1, InplaceOp1, Layout, Shape, Tensor};

use super::{
    Place, RowIndices,
    norm::Norm,
    pool::{ComputePool, TileGrid},
    ragged_attention::HeadShape,
    simd,
};

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

/// Elements that make a chunk worth a thread's while.
const CHUNK: usize = 1 << 14;

/// Why rows can't be rotated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RopeError {
    /// A position beyond the table.
    #[error("row {row} is at position {position}: the rotary table reaches {reach} positions")]
    Position {
        /// Row of the batch.
        row: usize,
        /// Its position.
        position: u32,
        /// Positions of the table.
        reach: usize,
    },
    /// The positions are not one a row.
    #[error("{positions} positions for {rows} rows")]
    Rows {
        /// Rows of the batch.
        rows: usize,
        /// Positions given.
        positions: usize,
    },
    /// A row, a table or a norm has another width than the heads.
    #[error("{what} of {found} columns: the heads need {expected}")]
    Columns {
        /// What has the width.
        what: &'static str,
        /// Columns needed.
        expected: usize,
        /// Columns found.
        found: usize,
    },
}

/// Cosines and sines by position. A clone shares them.
#[derive(Clone, Debug)]
pub struct RopeTable {
    half: usize,
    /// `(positions, [cos; sin])`
    turns: Arc<[f32]>,
    /// The same on a device.
    there: Option<Tensor>,
}

impl RopeTable {
    /// The turns of positions `0..reach` by `frequencies` `(dim / 2)`, radians a position.
    pub fn new(frequencies: &[f32], reach: usize) -> Self {
        let row = |position: usize| {
            // The angle is rounded to f32 first, as transformers does, so that far positions turn alike.
            let angles = frequencies.iter().map(move |frequency| f64::from(position as f32 * frequency));
            angles.clone().map(f64::cos).chain(angles.map(f64::sin)).map(|turn| turn as f32)
        };
        Self { half: frequencies.len(), turns: (0..reach).flat_map(row).collect(), there: None }
    }

    /// The same table, ready for rows at `place`.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn on(mut self, place: &Place) -> candle_core::Result<Self> {
        if place.device().is_cuda() {
            self.there = Some(Tensor::from_slice(&self.turns, self.turns.len(), place.device())?);
        }
        Ok(self)
    }

    /// Positions in the table.
    pub fn reach(&self) -> usize {
        self.turns.len() / (2 * self.half).max(1)
    }

    /// Cosines and sines of one position. `(dim / 2), (dim / 2)`
    fn turn(&self, position: u32) -> (&[f32], &[f32]) {
        let start = position as usize * 2 * self.half;
        self.turns[start..start + 2 * self.half].split_at(self.half)
    }
}

/// The norms of the heads of queries and of keys, each over one head's columns.
#[derive(Clone, Debug)]
pub struct HeadNorms {
    /// Over each head of q.
    pub query: Norm,
    /// Over each head of k.
    pub key: Norm,
}

/// Prepares the q and k columns of packed rows for attention; v passes.
#[derive(Clone, Copy, Debug)]
pub struct PrepareHeads<'a> {
    /// How columns are cut into heads.
    pub heads: HeadShape,
    /// Applied first, where the model has them.
    pub norms: Option<&'a HeadNorms>,
    /// The turns.
    pub rope: &'a RopeTable,
    /// One a row.
    pub positions: &'a RowIndices,
    /// The threads.
    pub pool: &'a ComputePool,
}

impl PrepareHeads<'_> {
    /// Norms and turns the heads of q and k: `(rows, (heads + 2 kv_heads) * dim)` to the same. On the CPU, where no gradients are
    /// wanted, this happens in place: whoever shares the tensor's memory sees it.
    ///
    /// # Errors
    /// When a position lies beyond the table or a width does not fit.
    pub fn forward(&self, qkv: Tensor) -> candle_core::Result<Tensor> {
        if qkv.track_op() {
            self.forward_tracked(&qkv)
        } else if qkv.device().is_cpu() {
            qkv.inplace_op1(self)?;
            Ok(qkv)
        } else {
            qkv.apply_op1_no_bwd(self)
        }
    }

    fn check(&self, rows: usize, width: usize) -> Result<(), RopeError> {
        let HeadShape { dim, .. } = self.heads;
        let columns = |what, found, expected| match found == expected {
            true => Ok(()),
            false => Err(RopeError::Columns { what, expected, found }),
        };
        columns("a row", width, self.heads.query_width() + 2 * self.heads.kv_width())?;
        columns("a rotary table", 2 * self.rope.half, dim)?;
        if let Some(norms) = self.norms {
            columns("a norm of queries", norms.query.width(), dim)?;
            columns("a norm of keys", norms.key.width(), dim)?;
        }
        if rows != self.positions.len() {
            return Err(RopeError::Rows { rows, positions: self.positions.len() });
        }
        let reach = self.rope.reach();
        match self.positions.iter().position(|&position| position as usize >= reach) {
            Some(row) => Err(RopeError::Position { row, position: self.positions[row], reach }),
            None => Ok(()),
        }
    }

    /// The rows and columns of contiguous rows that fit.
    fn checked(&self, layout: &Layout) -> candle_core::Result<(usize, usize, Range<usize>)> {
        let (rows, width) = layout.shape().dims2()?;
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("prepare-heads takes contiguous rows, found {layout:?}")
        };
        self.check(rows, width).map_err(candle_core::Error::wrap)?;
        Ok((rows, width, start..end))
    }

    /// All rows, in place.
    fn prepare_rows(&self, rows: usize, width: usize, values: &mut [f32]) {
        let grid = TileGrid { rows, columns: width, tile_rows: (CHUNK / width).max(1), tile_columns: width };
        self.pool.for_each_tile(values, grid, |mut tile| {
            for row in tile.rows() {
                self.prepare(tile.row_mut(row, 0..width), self.positions[row]);
            }
        });
    }

    /// One row, in place.
    fn prepare(&self, row: &mut [f32], position: u32) {
        let (cos, sin) = self.rope.turn(position);
        let (q, rest) = row.split_at_mut(self.heads.query_width());
        let k = &mut rest[..self.heads.kv_width()];
        for (part, norm) in
            [(q, self.norms.map(|norms| &norms.query)), (k, self.norms.map(|norms| &norms.key))]
        {
            if let Some(norm) = norm {
                part.chunks_exact_mut(self.heads.dim).for_each(|head| norm.normalise_in_place(head));
            }
            simd::widest!(turn(part: &mut [f32], cos: &[f32], sin: &[f32]));
        }
    }
}

/// Turns every head of `part` `(heads * dim)`.
#[inline(always)]
fn turn(part: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in part.chunks_exact_mut(2 * cos.len()) {
        let (first, second) = head.split_at_mut(cos.len());
        for (((x, y), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
        }
    }
}

impl CustomOp1 for PrepareHeads<'_> {
    fn name(&self) -> &'static str {
        "prepare-heads"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width, part) = self.checked(layout)?;
        let mut out = storage.as_slice::<f32>()?[part].to_vec(); // (rows, [q; k; v])
        self.prepare_rows(rows, width, &mut out);
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
}

impl InplaceOp1 for PrepareHeads<'_> {
    fn name(&self) -> &'static str {
        "prepare-heads"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (rows, width, part) = self.checked(layout)?;
        let CpuStorage::F32(values) = storage else { candle_core::bail!("prepare-heads takes rows of f32") };
        self.prepare_rows(rows, width, &mut values[part]);
        Ok(())
    }
}
