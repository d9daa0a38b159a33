//! `y = x W^T` with one order of sums, on the CPU and on a CUDA device: k in order, one fused multiply-add each, from zero.
//!
//! A library's product picks its kernel by the shape, so a row's bits depend on how many rows stand beside it. Here they
//! never do: not on the rows, not on a row's place, not on the device (in f32). It is the order of f32 weights in
//! [`super::linear`], too. The price on a device is that tensor cores, which add in an order of their own, are left out.

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

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};

use super::contiguous;

/// Why two tensors have no product.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatmulError {
    /// They are no matrices, or their rows differ in length.
    #[error("the product of x (rows, k) and W (n, k) can't be made of x {x:?} and W {weight:?}")]
    Shapes {
        /// The shape of x.
        x: Vec<usize>,
        /// The shape of W.
        weight: Vec<usize>,
    },
    /// Their numbers are none that are multiplied there.
    #[error(
        "the product of x and W takes f32 for both, or on a CUDA device bf16 for both: x is {x:?}, W is {weight:?}"
    )]
    Formats {
        /// The type of x.
        x: DType,
        /// The type of W.
        weight: DType,
    },
    /// A side has more than the kernels count in 32 bits.
    #[error("x {x:?} and W {weight:?}: no side of a product may be longer than {max}", max = i32::MAX)]
    Large {
        /// The shape of x.
        x: Vec<usize>,
        /// The shape of W.
        weight: Vec<usize>,
    },
    /// Gradients are wanted, which this product has none of.
    #[error("the product with fixed sums passes no gradients: train with layers that do")]
    Tracked,
}

/// `x W^T` of `x` (rows, k) and `weight` (n, k), which is how checkpoints store it: `(rows, n)` in the operands' type, with
/// sums in f32, rounded once. A row's bits depend on that row and on W alone.
///
/// Both are contiguous, on one device and of one type: f32, or bf16 on a CUDA device. On the CPU this is the plain
/// reference, not a fast product.
///
/// # Errors
/// [`MatmulError`]; operands that are not contiguous or on different devices; a failure of the device.
pub fn fixed_matmul(x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    check(x, weight).map_err(candle_core::Error::wrap)?;
    x.apply_op2_no_bwd(weight, &FixedMatmul)
}

fn check(x: &Tensor, weight: &Tensor) -> Result<(), MatmulError> {
    let shapes = || (x.dims().to_vec(), weight.dims().to_vec());
    let (&[rows, k], &[n, columns]) = (x.dims(), weight.dims()) else {
        let (x, weight) = shapes();
        return Err(MatmulError::Shapes { x, weight });
    };
    if k != columns {
        let (x, weight) = shapes();
        return Err(MatmulError::Shapes { x, weight });
    }
    if rows.max(n).max(k) > i32::MAX as usize {
        let (x, weight) = shapes();
        return Err(MatmulError::Large { x, weight });
    }
    let taken = x.dtype() == DType::F32 || (x.dtype() == DType::BF16 && x.device().is_cuda());
    if !taken || x.dtype() != weight.dtype() {
        return Err(MatmulError::Formats { x: x.dtype(), weight: weight.dtype() });
    }
    // Without an error here the way back would end in silence.
    if x.track_op() || weight.track_op() {
        return Err(MatmulError::Tracked);
    }
    Ok(())
}

/// `(rows, k), (n, k) -> (rows, n)`
struct FixedMatmul;

impl CustomOp2 for FixedMatmul {
    fn name(&self) -> &'static str {
        "fixed-matmul"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let ((rows, k), (n, _)) = (x_layout.shape().dims2()?, weight_layout.shape().dims2()?);
        let x = contiguous::values(self.name(), x, x_layout)?;
        let weight = contiguous::values(self.name(), weight, weight_layout)?;
        let out = reference::product(x, weight, (rows, n, k));
        Ok((CpuStorage::F32(out), Shape::from((rows, n))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        weight: &candle_core::CudaStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        cuda::product((x, x_layout), (weight, weight_layout))
    }
}
