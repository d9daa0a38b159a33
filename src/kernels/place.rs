//! Where a model computes.

use candle_core::{DType, Device};

/// Where a model's layers compute, and in which numbers.
#[derive(Debug, Clone)]
pub enum Place {
    /// On the CPU with the kernels of this crate: weights packed for this machine, activations in f32.
    Cpu,
    /// On a candle device: weights as plain matrices in `dtype`, products by the device's library, what flows between the
    /// products in `dtype` too. The residual stream is in f32.
    Dense {
        /// The device.
        device: Device,
        /// bf16 or f32.
        dtype: DType,
    },
}

/// Why a GPU can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// The binary knows nothing of CUDA.
    #[error("this dept is built without CUDA; use an image or a build for it (docs/gpu.md), or --device cpu")]
    NotBuilt,
    /// The driver says no.
    #[error("CUDA device {ordinal} can't be used: {source}; `nvidia-smi` lists what there is")]
    Driver {
        /// Which one.
        ordinal: usize,
        /// What the driver says.
        source: Box<candle_core::Error>,
    },
}

impl Place {
    /// The CUDA device `ordinal`, in `dtype`.
    ///
    /// # Errors
    /// When the binary is built without CUDA, or the driver has no such device.
    pub fn card(ordinal: usize, dtype: DType) -> Result<Self, CardError> {
        if !cfg!(feature = "cuda") {
            return Err(CardError::NotBuilt);
        }
        let driver = |source| CardError::Driver { ordinal, source: Box::new(source) };
        let device = Device::new_cuda_with_stream(ordinal).map_err(driver)?;
        #[cfg(feature = "cuda")]
        super::cuda::device::prepare(&device).map_err(driver)?;
        Ok(Self::Dense { device, dtype })
    }

    /// The device that tensors live on.
    pub fn device(&self) -> &Device {
        match self {
            Self::Cpu => &Device::Cpu,
            Self::Dense { device, .. } => device,
        }
    }

    /// The numbers between products, and in K/V slabs.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Cpu => DType::F32,
            Self::Dense { dtype, .. } => *dtype,
        }
    }
}
