//! The greedy choice where the logits are: of each row the lowest id among its largest logits.
//!
//! A step that only chooses greedily reads back one number a row in place of a vocabulary of them. A row that the sampler
//! ([`crate::sampling`]) would refuse has no choice here: the caller reads that row back and lets the sampler say why.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod device_tests;
#[cfg(test)]
#[cfg(feature = "cuda")]
mod gpu_tests;
#[cfg(any(test, feature = "cuda"))]
mod plan;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::contiguous;

/// What stands for no choice among the ids; no vocabulary is this large.
const NO_CHOICE: u32 = u32::MAX;

/// Why no choice can be made from a matrix of logits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BestError {
    /// The logits are no matrix.
    #[error("the greedy choice takes logits (rows, columns), found the shape {found:?}")]
    Shape {
        /// The shape.
        found: Vec<usize>,
    },
    /// A row has fewer logits than the vocabulary has tokens.
    #[error("a row of {found} logits for a vocabulary of {vocab} tokens: this is a fault of the server")]
    ShortRow {
        /// Logits in a row.
        found: usize,
        /// Tokens in the vocabulary.
        vocab: usize,
    },
    /// Rows beyond what the kernel counts in 32 bits.
    #[error("{rows} rows of {columns} logits: at most {max} of each can be searched", max = u32::MAX - 1)]
    Large {
        /// Rows.
        rows: usize,
        /// Logits in a row.
        columns: usize,
    },
}

/// The greedy choice of each row of `logits` (rows, >= vocab): the lowest id below `vocab` with the largest logit. Columns
/// from `vocab` on are padding and not looked at.
///
/// `None` is a row that [`crate::sampling::Sampler::sample`] refuses: among its logits is NaN or positive infinity, or
/// nothing above negative infinity.
///
/// The logits are contiguous, in f32, or on a CUDA device in f32 or bf16.
///
/// # Errors
/// [`BestError`]; another type or layout of the logits; a failure of the device.
pub fn best_tokens(logits: &Tensor, vocab: usize) -> candle_core::Result<Vec<Option<u32>>> {
    let &[rows, columns] = logits.dims() else {
        return Err(candle_core::Error::wrap(BestError::Shape { found: logits.dims().to_vec() }));
    };
    if columns < vocab {
        return Err(candle_core::Error::wrap(BestError::ShortRow { found: columns, vocab }));
    }
    if rows.max(columns) >= NO_CHOICE as usize {
        return Err(candle_core::Error::wrap(BestError::Large { rows, columns }));
    }
    // Nothing to launch, and a device has no memory of no bytes.
    if rows == 0 {
        return Ok(Vec::new());
    }
    let tokens = logits.apply_op1_no_bwd(&Best { vocab })?.to_vec1::<u32>()?;
    Ok(tokens.into_iter().map(|token| (token != NO_CHOICE).then_some(token)).collect())
}

/// `(rows, >= vocab) -> (rows)` u32, [`NO_CHOICE`] where there is none.
struct Best {
    vocab: usize,
}

impl CustomOp1 for Best {
    fn name(&self) -> &'static str {
        "best"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let logits = contiguous::values("best", storage, layout)?;
        let row = |row: usize| &logits[row * columns..][..self.vocab];
        let tokens = (0..rows).map(|at| reference::best(row(at)).unwrap_or(NO_CHOICE)).collect();
        Ok((CpuStorage::U32(tokens), Shape::from(rows)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        cuda::best(storage, layout, self.vocab)
    }
}
