//! The values of f32 tensors on the CPU, as slices.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor};

/// The values of a contiguous f32 operand of `op`.
pub(super) fn values<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("{op}: the input must be contiguous, found {layout:?}");
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Lets `read` see the values of a tensor, row-major; a tensor that is not contiguous is copied first.
pub(super) fn read<T>(op: &str, tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(values(op, storage, layout)?),
        _ => candle_core::bail!("{op}: gradients are computed on the CPU"),
    }
}
