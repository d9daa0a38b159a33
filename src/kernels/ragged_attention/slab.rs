//! Making a K/V slab, and writing to it.

use candle_core::{CpuStorage, DType, Device, InplaceOp1, InplaceOp2, Layout, Storage, Tensor};
use half::f16;

use super::{AttentionError, matrix};
use crate::{
    kernels::{RowIndices, floats, simd::LINE},
    kv::{BlockCopy, BlockId},
};

/// An empty slab: `(rows, width)`. On the CPU it starts where a cache line does, because a vector that lies across two lines is
/// read twice; and its pages cost no memory until they are first written.
///
/// # Errors
/// When the device has no memory for it.
pub fn empty_slab(shape: (usize, usize), dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
    if !device.is_cpu() {
        return Tensor::zeros(shape, dtype, device);
    }
    let (count, size) = (shape.0 * shape.1, dtype.size_in_bytes());
    let with_spare = count + LINE / size;
    let all = match dtype {
        // Zeroed integers come from the system as they are; zeros of f16 would be written.
        DType::F16 => {
            let zeros: Vec<f16> = bytemuck::allocation::cast_vec(vec![0u16; with_spare]);
            Tensor::from_vec(zeros, with_spare, device)?
        }
        dtype => Tensor::zeros(with_spare, dtype, device)?,
    };
    let address = match &*all.storage_and_layout().0 {
        Storage::Cpu(CpuStorage::F32(values)) => values.as_ptr().addr(),
        Storage::Cpu(CpuStorage::F16(values)) => values.as_ptr().addr(),
        _ => 0,
    };
    all.narrow(0, (address.next_multiple_of(LINE) - address) / size, count)?.reshape(shape)
}

/// Writes rows `[k; v]`, the last `2 kv_heads * dim` columns of `source`, to the slab rows `slots`. Where the slab is in f16,
/// what is beyond its largest number becomes that number.
///
/// # Errors
/// When a slot lies outside of the slab or the shapes differ.
pub fn write_key_values(slab: &Tensor, source: &Tensor, slots: &RowIndices) -> candle_core::Result<()> {
    if source.track_op() {
        candle_core::bail!("a slab passes no gradients: attend over rows");
    }
    slab.inplace_op2(source, &WriteKeyValues { slots })
}

/// Copies rows of a slab of blocks of `block_size` rows, one copy behind the other.
///
/// # Errors
/// When a block lies outside of the slab or a copy is longer than a block.
pub fn copy_blocks(slab: &Tensor, copies: &[BlockCopy], block_size: usize) -> candle_core::Result<()> {
    slab.inplace_op1(&CopyBlocks { copies, block_size })
}

struct WriteKeyValues<'a> {
    slots: &'a RowIndices,
}

impl WriteKeyValues<'_> {
    /// Each row into its slot by `write`.
    fn write<'r, T>(
        &self,
        rows: impl Iterator<Item = &'r [f32]>,
        slab: &mut [T],
        write: impl Fn(&[f32], &mut [T]),
    ) {
        for (row, &slot) in rows.zip(self.slots.iter()) {
            write(row, &mut slab[slot as usize * row.len()..][..row.len()]);
        }
    }
}

impl InplaceOp2 for WriteKeyValues<'_> {
    fn name(&self) -> &'static str {
        "write-key-values"
    }

    fn cpu_fwd(
        &self,
        slab: &mut CpuStorage,
        slab_layout: &Layout,
        source: &CpuStorage,
        source_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (slab_rows, width) = slab_layout.shape().dims2()?;
        let (rows, stride) = source_layout.shape().dims2()?;
        let (_, source) = matrix(source, source_layout, stride)?;
        if stride < width {
            return Err(candle_core::Error::wrap(AttentionError::Columns { expected: width, found: stride }));
        }
        if rows != self.slots.len() {
            candle_core::bail!("write-key-values has {rows} rows for {} slots", self.slots.len())
        }
        if let Some(slot) = self.slots.iter().find(|&&slot| slot as usize >= slab_rows) {
            candle_core::bail!("slot {slot} lies outside of a slab of {slab_rows} rows")
        }
        let rows = source.chunks_exact(stride).map(|row| &row[stride - width..]);
        match (slab, slab_layout.contiguous_offsets()) {
            (CpuStorage::F32(slab), Some((start, end))) => {
                self.write(rows, &mut slab[start..end], |row, slot| slot.copy_from_slice(row));
            }
            (CpuStorage::F16(slab), Some((start, end))) => {
                self.write(rows, &mut slab[start..end], floats::narrow);
            }
            _ => candle_core::bail!("write-key-values takes a contiguous slab of f32 or f16"),
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        slab: &mut candle_core::CudaStorage,
        slab_layout: &Layout,
        source: &candle_core::CudaStorage,
        source_layout: &Layout,
    ) -> candle_core::Result<()> {
        super::cuda::write_key_values((slab, slab_layout), (source, source_layout), self.slots)
    }
}

struct CopyBlocks<'a> {
    copies: &'a [BlockCopy],
    block_size: usize,
}

impl CopyBlocks<'_> {
    fn copy<T: Copy>(&self, slab: &mut [T], width: usize) {
        let row = |block: BlockId| block.index() * self.block_size * width;
        for &BlockCopy { from, to, rows } in self.copies {
            slab.copy_within(row(from)..row(from) + rows * width, row(to));
        }
    }
}

impl InplaceOp1 for CopyBlocks<'_> {
    fn name(&self) -> &'static str {
        "copy-blocks"
    }

    fn cpu_fwd(&self, slab: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (slab_rows, width) = layout.shape().dims2()?;
        for &BlockCopy { from, to, rows } in self.copies {
            let last = (from.index().max(to.index()) + 1) * self.block_size;
            if last > slab_rows || rows > self.block_size {
                candle_core::bail!("{rows} rows of {from:?} to {to:?}: the slab has {slab_rows} rows")
            }
        }
        match (slab, layout.contiguous_offsets()) {
            (CpuStorage::F32(slab), Some((start, end))) => self.copy(&mut slab[start..end], width),
            (CpuStorage::F16(slab), Some((start, end))) => self.copy(&mut slab[start..end], width),
            _ => candle_core::bail!("copy-blocks takes a contiguous slab of f32 or f16"),
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, slab: &mut candle_core::CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        super::cuda::copy_blocks((slab, layout), self.copies, self.block_size)
    }
}
