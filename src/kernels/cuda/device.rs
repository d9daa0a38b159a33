//! A CUDA device: kernels compiled for it from their sources by NVRTC, once a process, and started on its stream.
//!
//! NVRTC is a library of the toolkit beside the driver; it takes about a second a source and makes code for the very card,
//! so one binary serves all of them and building it needs no compiler of NVIDIA's for what stands here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Layout, Result, Storage, Tensor,
    backend::BackendStorage,
    cuda::{WrapErr, cudarc},
};
use cudarc::{
    driver::{
        CudaSlice, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
        sys::{CUdevice_attribute_enum, CUfunction_attribute_enum},
    },
    nvrtc::{CompileOptions, compile_ptx_with_opts},
};

use super::{Address, Format, Launch, Plain, SOURCES, bytes_of};

/// Dynamic shared memory that a kernel may take without asking.
const SHARED_BYTES: u32 = 48 << 10;

/// Starts a kernel; nothing happens without blocks.
///
/// # Errors
/// When the kernel can't be compiled or started on this device.
///
/// # Safety
/// `arguments` is the kernel's structure, and every address in it holds what the kernel reads and writes, until the stream
/// has passed the launch. Memory that is freed on the same stream behind it is.
pub(in crate::kernels) unsafe fn launch<A: Plain>(
    device: &CudaDevice,
    launch: Launch,
    arguments: A,
) -> Result<()> {
    /// What a kernel takes by value.
    #[repr(transparent)]
    struct Argument<A>(A);
    // SAFETY: `Plain` says that it lies in memory as a kernel reads it.
    unsafe impl<A: Plain> DeviceRepr for Argument<A> {}

    if launch.blocks == 0 {
        return Ok(());
    }
    let (module, code) = code(device, launch.kernel)?;
    let function = device.get_or_load_custom_func(launch.kernel, module, &code)?;
    if launch.shared_bytes > SHARED_BYTES {
        let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, launch.shared_bytes as i32).w()?;
    }
    let arguments = Argument(arguments);
    let mut builder = function.builder();
    builder.arg(&arguments);
    let config = LaunchConfig {
        grid_dim: (launch.blocks, 1, 1),
        block_dim: (launch.threads, 1, 1),
        shared_mem_bytes: launch.shared_bytes,
    };
    // SAFETY: the caller's promise.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// The source that holds `kernel`, by name, and its PTX for this device.
fn code(device: &CudaDevice, kernel: &str) -> Result<(&'static str, Arc<str>)> {
    /// By compute capability and name of the source: a pure function of both, computed once.
    static COMPILED: Mutex<BTreeMap<(i32, &str), Arc<str>>> = Mutex::new(BTreeMap::new());
    let context = device.cuda_stream().context().clone();
    let (major, minor) = context.compute_capability().w()?;
    let source = SOURCES
        .iter()
        .find(|source| source.kernels.iter().any(|prefix| kernel.starts_with(prefix)))
        .ok_or_else(|| candle_core::Error::msg(format!("no source holds the kernel '{kernel}'")))?;
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let capability = major * 10 + minor;
    if let Some(code) = compiled.get(&(capability, source.name)) {
        return Ok((source.name, code.clone()));
    }
    let options = CompileOptions {
        fmad: Some(false),
        options: vec!["--std=c++17".into(), format!("--gpu-architecture=compute_{capability}")],
        name: Some(source.name.into()),
        ..CompileOptions::default()
    };
    let code: Arc<str> = compile_ptx_with_opts(source.whole(), options).w()?.to_src().into();
    compiled.insert((capability, source.name), code.clone());
    Ok((source.name, code))
}

/// Copies values to the device, in the order of its stream.
///
/// # Errors
/// When there is no memory for them.
pub(in crate::kernels) fn upload<T: Plain>(device: &CudaDevice, values: &[T]) -> Result<CudaSlice<u8>> {
    // An empty copy would have no address.
    let bytes = bytes_of(values);
    device.clone_htod(if bytes.is_empty() { &[0u8][..] } else { bytes })
}

/// Where a slice lies on its device.
pub(in crate::kernels) fn address<T>(device: &CudaDevice, slice: &CudaSlice<T>) -> Address {
    Address(slice.device_ptr(&device.cuda_stream()).0)
}

/// The multiprocessors of a device: as many blocks keep it busy.
///
/// # Errors
/// When the driver does not say.
pub(in crate::kernels) fn multiprocessors(device: &CudaDevice) -> Result<usize> {
    let attribute = CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    Ok(device.cuda_stream().context().attribute(attribute).w()? as usize)
}

/// Where a contiguous tensor lies on its device.
///
/// # Errors
/// When it is not on a CUDA device, not contiguous, or of another type than the kernels read.
pub(in crate::kernels) fn address_of(tensor: &Tensor) -> Result<Address> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(storage), Some((start, _))) = (&*storage, layout.contiguous_offsets()) else {
        candle_core::bail!("a CUDA kernel takes a contiguous tensor on its device, found {layout:?}")
    };
    let device = &storage.device;
    let base = match storage.dtype() {
        DType::F32 => address(device, storage.as_cuda_slice::<f32>()?),
        DType::BF16 => address(device, storage.as_cuda_slice::<half::bf16>()?),
        DType::U32 => address(device, storage.as_cuda_slice::<u32>()?),
        other => candle_core::bail!("a CUDA kernel takes f32, bf16 or u32, found {other:?}"),
    };
    Ok(base.offset(start * storage.dtype().size_in_bytes()))
}

/// Memory for `count` numbers of `format`, every one of which `write` writes at the address that it is given.
///
/// # Errors
/// When there is no memory, and those of `write`.
pub(in crate::kernels) fn fill(
    device: &CudaDevice,
    format: Format,
    count: usize,
    write: impl FnOnce(Address) -> Result<()>,
) -> Result<CudaStorage> {
    // A driver gives no memory of no bytes.
    let count = count.max(1);
    Ok(match format {
        Format::F32 => {
            // SAFETY: `write` writes all of it before anything reads it.
            let out = unsafe { device.alloc::<f32>(count)? };
            write(address(device, &out))?;
            CudaStorage::wrap_cuda_slice(out, device.clone())
        }
        Format::Bf16 => {
            // SAFETY: as above.
            let out = unsafe { device.alloc::<half::bf16>(count)? };
            write(address(device, &out))?;
            CudaStorage::wrap_cuda_slice(out, device.clone())
        }
    })
}

/// Makes a new device ready for this process: its driver keeps no events about who used which memory.
///
/// # Errors
/// When it is no CUDA device.
pub(in crate::kernels) fn prepare(device: &Device) -> Result<()> {
    let context = device.as_cuda_device()?.cuda_stream().context().clone();
    // SAFETY: the engine's thread computes on one stream, which keeps its own order. The only other stream copies adapters to
    // their pool and is joined with it by hand.
    unsafe { context.disable_event_tracking() };
    Ok(())
}

/// A contiguous matrix on a device.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Matrix {
    /// Of its first number.
    pub address: Address,
    /// Of its numbers.
    pub format: Format,
    /// Rows.
    pub rows: usize,
    /// Columns, and numbers from one row to the next.
    pub columns: usize,
}

impl Matrix {
    /// The matrix in `storage`.
    ///
    /// # Errors
    /// When it is not contiguous, or neither in f32 nor in bf16.
    pub fn new(storage: &CudaStorage, layout: &Layout) -> Result<Self> {
        let (rows, columns) = layout.shape().dims2()?;
        let Some((start, _)) = layout.contiguous_offsets() else {
            candle_core::bail!("a CUDA kernel takes contiguous rows, found {layout:?}")
        };
        let device = &storage.device;
        let (base, format) = match storage.dtype() {
            DType::F32 => (address(device, storage.as_cuda_slice::<f32>()?), Format::F32),
            DType::BF16 => (address(device, storage.as_cuda_slice::<half::bf16>()?), Format::Bf16),
            other => candle_core::bail!("a CUDA kernel takes f32 or bf16, found {other:?}"),
        };
        Ok(Self { address: base.offset(start * format.bytes()), format, rows, columns })
    }
}

/// The first device, for tests; without one, says that they are skipped.
#[cfg(test)]
pub(in crate::kernels) fn card() -> Option<candle_core::Device> {
    candle_core::Device::new_cuda_with_stream(0)
        .inspect_err(|error| eprintln!("SKIPPED: no CUDA device to test on: {error}"))
        .ok()
}
