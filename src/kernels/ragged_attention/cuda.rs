//! The ops on a CUDA device. Spans and block tables are copied to it once a step: a few hundred bytes a sequence.

use candle_core::{
    CudaDevice, CudaStorage, Device, Layout, Result, Shape, Tensor,
    cuda::{
        WrapErr,
        cudarc::driver::{CudaSlice, result::memcpy_dtod_async},
    },
};

use super::{
    Attention, AttentionError, RelativeBias, SpanTables,
    plan::{Arguments, AttentionPlan, WriteArguments, write_launch},
};
use crate::{
    kernels::{
        RowIndices,
        cuda::{
            Address,
            device::{Matrix, address, address_of, fill, launch, upload},
        },
    },
    kv::{BlockCopy, BlockId},
};

/// A plan and its parts on the device.
#[derive(Debug)]
pub(super) struct DeviceTables {
    plan: AttentionPlan,
    spans: CudaSlice<u8>,
    blocks: CudaSlice<u8>,
    /// Of `attend_rows` and `attend_split`.
    tasks: [CudaSlice<u8>; 2],
}

impl DeviceTables {
    fn new(attention: &Attention<'_>, device: &CudaDevice, one_kernel: bool) -> Result<Self> {
        let plan = AttentionPlan::new(attention, one_kernel).map_err(candle_core::Error::wrap)?;
        let (spans, blocks) = (upload(device, &plan.spans)?, upload(device, &plan.blocks)?);
        let tasks = [upload(device, &plan.rows)?, upload(device, &plan.split)?];
        Ok(Self { plan, spans, blocks, tasks })
    }
}

impl SpanTables {
    fn of(&self, attention: &Attention<'_>, device: &CudaDevice) -> Result<&DeviceTables> {
        if let Some(there) = self.there.get() {
            return Ok(there);
        }
        let laid = DeviceTables::new(attention, device, self.invariant)?;
        Ok(self.there.get_or_init(|| laid))
    }
}

/// A relative bias on the device: its weight, and the bucket of each distance.
#[derive(Debug, Clone)]
pub(super) struct DeviceBias {
    /// `(buckets, heads)`
    weight: Tensor,
    /// `(2 max_distance + 1)`
    buckets: Tensor,
}

impl DeviceBias {
    pub fn new(bias: &RelativeBias, device: &Device) -> Result<Self> {
        let (weight, buckets) = bias.device_tables();
        Ok(Self {
            weight: Tensor::from_slice(weight, weight.len(), device)?,
            buckets: Tensor::from_slice(&buckets, buckets.len(), device)?,
        })
    }

    /// Addresses of the weight and of the buckets, and the largest distance that has its own.
    fn addresses(&self) -> Result<(Address, Address, u32)> {
        let distances = self.buckets.elem_count() / 2;
        Ok((address_of(&self.weight)?, address_of(&self.buckets)?, distances as u32))
    }
}

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
    let fresh = SpanTables::default();
    let tables = attention.tables.unwrap_or(&fresh).of(attention, device)?;
    let heads = attention.heads;
    let there = attention.bias.map(RelativeBias::on_device).transpose()?;
    let (bias, buckets, max_distance) = there.map(DeviceBias::addresses).transpose()?.unwrap_or_default();
    let arguments = |out: Address| Arguments {
        q: q.address,
        keys: kv.address.offset(columns.keys * kv.format.bytes()),
        values: kv.address.offset(columns.values * kv.format.bytes()),
        out,
        blocks: address(device, &tables.blocks),
        spans: address(device, &tables.spans),
        tasks: Address::default(),
        bias,
        buckets,
        q_stride: q.columns as u32,
        kv_stride: kv.columns as u32,
        heads: heads.heads as u32,
        kv_heads: heads.kv_heads as u32,
        dim: heads.dim as u32,
        block_size: tables.plan.block_size,
        window: attention.window.map_or(u32::MAX, |window| window as u32),
        max_distance,
        scale: attention.scale,
        biased: u32::from(attention.bias.is_some()),
        soft_cap: attention.soft_cap.unwrap_or(0.0),
        unused: 0,
    };
    let width = heads.query_width();
    // The spans cover every row, so the kernels write every number.
    let storage = fill(device, q.format, q.rows * width, |out| {
        for (kernel, tasks) in tables.plan.launches(heads, q.format).into_iter().zip(&tables.tasks) {
            let arguments = Arguments { tasks: address(device, tasks), ..arguments(out) };
            // SAFETY: the spans were checked against both matrices, the plan follows them, and all memory is freed on the
            // stream behind the launch.
            unsafe { launch(device, kernel, arguments)? };
        }
        Ok(())
    })?;
    Ok((storage, Shape::from((q.rows, width))))
}

/// Writes the last columns of `source`'s rows to the slab rows `slots`.
pub(super) fn write_key_values(
    (slab, slab_layout): (&mut CudaStorage, &Layout),
    (source, source_layout): (&CudaStorage, &Layout),
    slots: &RowIndices,
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
    let arguments = WriteArguments {
        source: source.address,
        slab: slab.address,
        slots: address_of(slots.on(&Device::Cuda(device.clone()))?)?,
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
