//! The op on a CUDA device.

use candle_core::{CudaStorage, Layout, Result, Shape};

use super::plan::{Arguments, Cut, Sides};
use crate::kernels::cuda::{
    Address,
    device::{Matrix, fill, launch, multiprocessors},
};

/// The product of two matrices that `check` has passed. `(rows, k), (n, k) -> (rows, n)`
pub(super) fn product(
    x: (&CudaStorage, &Layout),
    weight: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let device = &x.0.device;
    let (x, weight) = (Matrix::new(x.0, x.1)?, Matrix::new(weight.0, weight.1)?);
    let sides = Sides { rows: x.rows, n: weight.rows, k: x.columns };
    let kernel = Cut::of(sides, multiprocessors(device)?).launch(sides, x.format);
    let arguments = Arguments::new(x.address, weight.address, sides, x.format);
    let run = |out: Address| {
        // SAFETY: both matrices have the sides that were checked, `out` (rows, n) numbers, and all memory is freed on the
        // stream behind the launch.
        unsafe { launch(device, kernel, Arguments { out, ..arguments }) }
    };
    // The tiles cover every row and column, so the kernel writes every number.
    let storage = fill(device, x.format, sides.rows * sides.n, run)?;
    Ok((storage, Shape::from((sides.rows, sides.n))))
}
