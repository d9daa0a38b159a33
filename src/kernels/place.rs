//! Where a model computes.

use candle_core::{DType, Device};

/// Where a model's layers compute, and in which numbers.
#[derive(Debug, Clone)]
pub enum Place {
    /// On the CPU with the kernels of this crate: weights packed for this machine, activations in f32.
    Cpu,
    /// On a candle device: weights as plain matrices in `dtype`, products by the device's library, what flows between the
    /// products in `dtype` too. The residual stream is in f32.
    Dense(DensePlace),
}

/// A candle device and how layers compute there.
#[derive(Debug, Clone)]
pub struct DensePlace {
    /// The device.
    pub device: Device,
    /// bf16 or f32.
    pub dtype: DType,
    /// Whether a row's bits never depend on what else is computed with it: products by kernels of this crate with one order
    /// of sums, and attention by one kernel. Slower; else the device's library chooses by shape.
    pub invariant: bool,
}

/// Why a GPU can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// The binary knows nothing of CUDA.
    #[error("this dept is built without CUDA; use an image or a build for it (docs/gpu.md), or --device cpu")]
    NotBuilt,
    /// The driver says no.
    #[error("CUDA device {ordinal} can't be used: {why}; `nvidia-smi` lists what there is")]
    Driver {
        /// Which one.
        ordinal: usize,
        /// What the driver says.
        why: Box<candle_core::Error>,
    },
}

impl Place {
    /// The CUDA device `ordinal`, in `dtype`; with the same bits in every batch where `invariant`.
    ///
    /// # Errors
    /// When the binary is built without CUDA, or the driver has no such device.
    pub fn card(ordinal: usize, dtype: DType, invariant: bool) -> Result<Self, CardError> {
        if !cfg!(feature = "cuda") {
            return Err(CardError::NotBuilt);
        }
        let driver = |why| CardError::Driver { ordinal, why: Box::new(why) };
        let device = Device::new_cuda_with_stream(ordinal).map_err(driver)?;
        #[cfg(feature = "cuda")]
        super::cuda::device::prepare(&device).map_err(driver)?;
        Ok(Self::Dense(DensePlace { device, dtype, invariant }))
    }

    /// The device that tensors live on.
    pub fn device(&self) -> &Device {
        match self {
            Self::Cpu => &Device::Cpu,
            Self::Dense(there) => &there.device,
        }
    }

    /// Whether a row's bits never depend on what else is computed with it. On the CPU they never do.
    pub fn invariant(&self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Dense(there) => there.invariant,
        }
    }

    /// The numbers between products.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Cpu => DType::F32,
            Self::Dense(there) => there.dtype,
        }
    }
}
