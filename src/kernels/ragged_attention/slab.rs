//! Writing to a K/V slab.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Tensor};

use super::{AttentionError, matrix};
use crate::{kernels::RowIndices, kv::BlockCopy};

/// Writes rows `[k; v]`, the last `2 kv_heads * dim` columns of `source`, to the slab rows `slots`.
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
        let (CpuStorage::F32(slab), Some((start, _))) = (slab, slab_layout.contiguous_offsets()) else {
            candle_core::bail!("write-key-values takes a contiguous f32 slab")
        };
        for (row, &slot) in source.chunks_exact(stride).zip(self.slots.iter()) {
            let slot = slot as usize;
            if slot >= slab_rows {
                candle_core::bail!("slot {slot} lies outside of a slab of {slab_rows} rows")
            }
            slab[start + slot * width..][..width].copy_from_slice(&row[stride - width..]);
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

impl InplaceOp1 for CopyBlocks<'_> {
    fn name(&self) -> &'static str {
        "copy-blocks"
    }

    fn cpu_fwd(&self, slab: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (slab_rows, width) = layout.shape().dims2()?;
        let (CpuStorage::F32(slab), Some((start, _))) = (slab, layout.contiguous_offsets()) else {
            candle_core::bail!("copy-blocks takes a contiguous f32 slab")
        };
        for &BlockCopy { from, to, rows } in self.copies {
            let last = (from.index().max(to.index()) + 1) * self.block_size;
            if last > slab_rows || rows > self.block_size {
                candle_core::bail!("{rows} rows of {from:?} to {to:?}: the slab has {slab_rows} rows")
            }
            let row = |block: crate::kv::BlockId| start + block.index() * self.block_size * width;
            slab.copy_within(row(from)..row(from) + rows * width, row(to));
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, slab: &mut candle_core::CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        super::cuda::copy_blocks((slab, layout), self.copies, self.block_size)
    }
}
