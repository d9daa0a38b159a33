//! The loss of rows of logits: `weight * sum over rows of -log softmax(logits)[target]`, and its gradient.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::{
    contiguous::values,
    pool::{ComputePool, TileGrid},
    simd,
};

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

/// The loss of rows of logits against one target each.
#[derive(Debug, Clone)]
pub struct CrossEntropy {
    /// The token that each row should have given.
    pub targets: Vec<u32>,
    /// Factor on the sum: 1 / (targets of the whole batch) makes it the mean.
    pub weight: f32,
    /// The threads.
    pub pool: ComputePool,
}

impl CrossEntropy {
    /// `(rows, vocab) -> ()`
    ///
    /// # Errors
    /// When there is not one target a row, or a target lies outside of the vocabulary.
    pub fn forward(self, logits: &Tensor) -> Result<Tensor> {
        logits.apply_op1(self)
    }

    fn check(&self, layout: &Layout) -> Result<(usize, usize)> {
        let (rows, vocab) = layout.shape().dims2()?;
        if rows != self.targets.len() {
            candle_core::bail!("cross-entropy: {} targets for {rows} rows of logits", self.targets.len());
        }
        match self.targets.iter().find(|&&target| target as usize >= vocab) {
            Some(target) => candle_core::bail!("cross-entropy: target {target} of a vocabulary of {vocab}"),
            None => Ok((rows, vocab)),
        }
    }
}

/// The largest value, and the logarithm of the sum of the exponentials above it.
fn log_sum(row: &[f32]) -> (f32, f64) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
    (largest, total.ln())
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, vocab) = self.check(layout)?;
        let logits = values(self.name(), storage, layout)?;
        let mut losses = vec![0f64; rows];
        let grid = TileGrid { rows, columns: 1, tile_rows: 1, tile_columns: 1 };
        self.pool.for_each_tile(&mut losses, grid, |mut tile| {
            for row in tile.rows() {
                let logits = &logits[row * vocab..(row + 1) * vocab];
                let (largest, log_sum) = log_sum(logits);
                let wanted = f64::from(logits[self.targets[row] as usize] - largest);
                tile.row_mut(row, 0..1)[0] = log_sum - wanted;
            }
        });
        let sum: f64 = losses.iter().sum();
        Ok((CpuStorage::F32(vec![(f64::from(self.weight) * sum) as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        logits.apply_op2_no_bwd(gradient, &CrossEntropyBackward(self)).map(Some)
    }
}

/// `(rows, vocab), () -> (rows, vocab)`: `gradient * weight * (softmax - one-hot)`
struct CrossEntropyBackward<'a>(&'a CrossEntropy);

impl CustomOp2 for CrossEntropyBackward<'_> {
    fn name(&self) -> &'static str {
        "cross-entropy-backward"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, vocab) = self.0.check(layout)?;
        let mut out = values(self.name(), logits, layout)?.to_vec();
        let gradient = values(self.name(), gradient, gradient_layout)?.first().copied().unwrap_or(0.0);
        let weight = gradient * self.0.weight;
        let grid = TileGrid { rows, columns: vocab, tile_rows: 1, tile_columns: vocab };
        self.0.pool.for_each_tile(&mut out, grid, |mut tile| {
            for row in tile.rows() {
                let out = tile.row_mut(row, 0..vocab);
                simd::widest!(softmax(out: &mut [f32], weight: f32));
                out[self.0.targets[row] as usize] -= weight;
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

/// `weight * softmax`, in place.
#[inline(always)]
fn softmax(row: &mut [f32], weight: f32) {
    let largest = simd::max(row);
    row.iter_mut().for_each(|x| *x = simd::exp(*x - largest));
    let share = weight / simd::sum(row);
    row.iter_mut().for_each(|x| *x *= share);
}
