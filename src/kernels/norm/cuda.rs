//! The op on a CUDA device, whose weights are resident there.

use candle_core::{CudaStorage, DType, Device, Layout, Result, Shape, Tensor};

use super::{
    Norm,
    plan::{Arguments, launch},
};
use crate::kernels::cuda::{
    Address, Format,
    device::{self, Matrix, address_of, fill},
};

/// A norm's weights on a device, and what its outputs are rounded to there.
#[derive(Debug, Clone)]
pub(in crate::kernels) struct DeviceNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    format: Format,
}

impl DeviceNorm {
    pub fn new(norm: &Norm, device: &Device, dtype: DType) -> Result<Self> {
        let copy = |values: &[f32]| Tensor::from_slice(values, values.len(), device);
        let format = if dtype == DType::BF16 { Format::Bf16 } else { Format::F32 };
        Ok(Self { weight: copy(&norm.weight)?, bias: norm.bias.as_deref().map(copy).transpose()?, format })
    }

    /// Where the weights lie.
    pub fn weight(&self) -> Result<Address> {
        address_of(&self.weight)
    }
}

impl Norm {
    pub(in crate::kernels) fn on_device(&self) -> Result<&DeviceNorm> {
        self.there.as_ref().ok_or_else(|| candle_core::Error::msg("the norm's weights are not on the device"))
    }

    /// What the norm adds to the mean square.
    pub(in crate::kernels) fn eps(&self) -> f32 {
        self.eps
    }
}

/// `(rows, width)` f32 to the same in the norm's format.
pub(super) fn forward(norm: &Norm, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
    let (there, card) = (norm.on_device()?, &x.device);
    let x = Matrix::new(x, layout)?;
    if x.columns != norm.width() || x.format != Format::F32 {
        candle_core::bail!("norm takes rows of {} f32, found {x:?}", norm.width())
    }
    let arguments = |out| -> Result<Arguments> {
        Ok(Arguments {
            x: x.address,
            weight: there.weight()?,
            bias: there.bias.as_ref().map(address_of).transpose()?.unwrap_or_default(),
            out,
            rows: x.rows as u32,
            width: x.columns as u32,
            eps: norm.eps,
            layer: u32::from(there.bias.is_some()),
        })
    };
    let storage = fill(card, there.format, x.rows * x.columns, |out| {
        // SAFETY: `x` and the output are (rows, width), the weights (width), by the checks above and in `Norm`.
        unsafe { device::launch(card, launch(x.rows, there.format), arguments(out)?) }
    })?;
    Ok((storage, layout.shape().clone()))
}
