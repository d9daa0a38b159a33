//! The ops on a CUDA device. Spans and tables are copied to it with each call: a few hundred bytes a sequence.

use candle_core::{
    CudaDevice, CudaStorage, Layout, Result, Shape,
    cuda::{WrapErr, cudarc::driver::result::memcpy_dtod_async},
};

use super::{
    Attention, AttentionError,
    plan::{Arguments, AttentionPlan, WriteArguments, write_launch},
};
use crate::{
    kernels::cuda::{
        Address, Format,
        device::{Matrix, address, launch, upload},
    },
    kv::{BlockCopy, BlockId},
};

/// Where keys and values lie among the columns of a matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyValueColumns {
    pub keys: usize,
    pub values: usize,
}

/// Attention of the rows of `q` over the rows of `kv`. `(rows, >= heads * dim), (key rows, ..) -> (rows, heads * dim)`
pub(super) fn attend(
    attention: &Attention<'_>,
    device: &CudaDevice,
    (q, kv): (Matrix, Matrix),
    columns: KeyValueColumns,
) -> Result<(CudaStorage, Shape)> {
    attention.check(q.rows, kv.rows).map_err(candle_core::Error::wrap)?;
    if q.format != kv.format {
        candle_core::bail!("queries and keys are in one format, found {:?} and {:?}", q.format, kv.format)
    }
    let plan = AttentionPlan::new(attention).map_err(candle_core::Error::wrap)?;
    let (heads, count) = (attention.heads, q.rows * attention.heads.query_width());
    let (spans, blocks) = (upload(device, &plan.spans)?, upload(device, &plan.blocks)?);
    let (weight, buckets) = attention.bias.map(|bias| bias.device_tables()).unwrap_or_default();
    let (bias, bucket_table) = (upload(device, weight)?, upload(device, &buckets)?);
    let arguments = |out: Address| Arguments {
        q: q.address,
        keys: kv.address.offset(columns.keys * kv.format.bytes()),
        values: kv.address.offset(columns.values * kv.format.bytes()),
        out,
        blocks: address(device, &blocks),
        spans: address(device, &spans),
        tasks: Address::default(),
        bias: address(device, &bias),
        buckets: address(device, &bucket_table),
        q_stride: q.columns as u32,
        kv_stride: kv.columns as u32,
        heads: heads.heads as u32,
        kv_heads: heads.kv_heads as u32,
        dim: heads.dim as u32,
        block_size: plan.block_size,
        window: attention.window.map_or(u32::MAX, |window| window as u32),
        max_distance: (buckets.len() / 2) as u32,
        scale: attention.scale,
        biased: u32::from(attention.bias.is_some()),
    };
    let run = |out: Address| -> Result<()> {
        for (kernel, tasks) in plan.launches(heads, q.format).into_iter().zip([&plan.rows, &plan.split]) {
            let tasks = upload(device, tasks)?;
            let arguments = Arguments { tasks: address(device, &tasks), ..arguments(out) };
            // SAFETY: the spans were checked against both matrices, the plan follows them, and all memory here is freed on
            // the stream behind the launch.
            unsafe { launch(device, kernel, arguments)? };
        }
        Ok(())
    };
    let shape = Shape::from((q.rows, heads.query_width()));
    // SAFETY: the spans cover every row, so the kernels write every number of `out`.
    let storage = match q.format {
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
    Ok((storage, shape))
}

/// Writes the last columns of `source`'s rows to the slab rows `slots`.
pub(super) fn write_key_values(
    (slab, slab_layout): (&mut CudaStorage, &Layout),
    (source, source_layout): (&CudaStorage, &Layout),
    slots: &[u32],
) -> Result<()> {
    let device = slab.device.clone();
    let (slab, source) = (Matrix::new(slab, slab_layout)?, Matrix::new(source, source_layout)?);
    let (width, stride, bytes) = (slab.columns, source.columns, slab.format.bytes());
    if stride < width {
        return Err(candle_core::Error::wrap(AttentionError::Columns { expected: width, found: stride }));
    }
    if source.rows != slots.len() || source.format != slab.format {
        candle_core::bail!("write-key-values has {source:?} for {} slots of {slab:?}", slots.len())
    }
    if !(width * bytes).is_multiple_of(8) || !(stride * bytes).is_multiple_of(8) {
        candle_core::bail!(
            "write-key-values moves 8 bytes at a time: rows of {width} and {stride} numbers don't fit"
        )
    }
    if let Some(slot) = slots.iter().find(|&&slot| slot as usize >= slab.rows) {
        candle_core::bail!("slot {slot} lies outside of a slab of {} rows", slab.rows)
    }
    let places = upload(&device, slots)?;
    let arguments = WriteArguments {
        source: source.address,
        slab: slab.address,
        slots: address(&device, &places),
        rows: slots.len() as u32,
        stride: (stride * bytes / 8) as u32,
        width: (width * bytes / 8) as u32,
        unused: 0,
    };
    // SAFETY: the slots lie in the slab, and the rows in the source.
    unsafe { launch(&device, write_launch(slots.len()), arguments) }
}

/// Copies rows of a slab of blocks of `block_size` rows, one copy behind the other.
pub(super) fn copy_blocks(
    (slab, layout): (&mut CudaStorage, &Layout),
    copies: &[BlockCopy],
    block_size: usize,
) -> Result<()> {
    let stream = slab.device.cuda_stream();
    let slab = Matrix::new(slab, layout)?;
    let row_bytes = slab.columns * slab.format.bytes();
    for &BlockCopy { from, to, rows } in copies {
        let last = (from.index().max(to.index()) + 1) * block_size;
        if last > slab.rows || rows > block_size {
            candle_core::bail!("{rows} rows of {from:?} to {to:?}: the slab has {} rows", slab.rows)
        }
        let place = |block: BlockId| slab.address.offset(block.index() * block_size * row_bytes).0;
        // SAFETY: both blocks lie in the slab; the stream keeps copies in order.
        unsafe { memcpy_dtod_async(place(to), place(from), rows * row_bytes, stream.cu_stream()) }.w()?;
    }
    Ok(())
}
