//! The op on a CUDA device.

use candle_core::{CudaStorage, Layout, Result, Shape};

use super::plan::{self, Arguments};
use crate::kernels::cuda::device::{Matrix, address, launch};

/// The choices of the rows of a matrix that has `vocab` columns at least. `(rows, >= vocab) -> (rows)` u32
pub(super) fn best(storage: &CudaStorage, layout: &Layout, vocab: usize) -> Result<(CudaStorage, Shape)> {
    let (device, logits) = (&storage.device, Matrix::new(storage, layout)?);
    // SAFETY: the kernel writes the id of every row.
    let out = unsafe { device.alloc::<u32>(logits.rows)? };
    let arguments =
        Arguments::new((logits.address, logits.format), address(device, &out), logits.columns, vocab);
    // SAFETY: the matrix has the rows that are launched and, as `best_tokens` has checked, `vocab` columns; the caller's
    // logits are freed on the stream behind the launch.
    unsafe { launch(device, plan::launch(logits.rows, logits.format), arguments)? };
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from(logits.rows)))
}
