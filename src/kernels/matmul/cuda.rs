//! The op on a CUDA device.

use candle_core::{CudaStorage, Layout, Result, Shape};

use super::plan::{Arguments, Cut, Sides};
use crate::kernels::cuda::{
    Address, Format,
    device::{Matrix, address, launch, multiprocessors},
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
    // A device has no memory of no bytes.
    let count = (sides.rows * sides.n).max(1);
    // SAFETY: the tiles cover every row and column, so the kernel writes every number of `out`.
    let storage = match x.format {
        Format::F32 => {
            let out = unsafe { device.alloc::<f32>(count)? };
            run(address(device, &out))?;
            CudaStorage::wrap_cuda_slice(out, device.clone())
        }
        Format::Bf16 => {
            let out = unsafe { device.alloc::<half::bf16>(count)? };
            run(address(device, &out))?;
            CudaStorage::wrap_cuda_slice(out, device.clone())
        }
    };
    Ok((storage, Shape::from((sides.rows, sides.n))))
}
