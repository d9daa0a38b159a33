//! The op on a CUDA device, whose tables and adapters are resident there.

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, Device, Layout, Result, Shape, Tensor,
    cuda::cudarc::driver::CudaSlice,
};

use super::{
    AdapterSlot, EmbeddingTable, RowTable, UpdateSlot, check,
    plan::{Arguments, DeviceSlot, EmbedPlan, TableFormat, UpdateKind},
    table::TableParts,
};
use crate::kernels::cuda::{
    Address,
    device::{address, launch, multiprocessors, upload},
};

/// Where the tensors of an adapter start inside of its memory: vectors of 16 bytes, and whole sectors of a card's memory.
const ALIGNMENT: usize = 32;

/// An embedding table in a device's memory.
#[derive(Debug)]
pub struct ResidentTable {
    device: CudaDevice,
    values: CudaSlice<u8>,
    scales: CudaSlice<u8>,
    format: TableFormat,
}

impl ResidentTable {
    /// Copies the table to the device, in its own format.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn upload(device: &CudaDevice, table: &EmbeddingTable) -> Result<Self> {
        let (values, scales, format) = match table.parts() {
            TableParts::F32(values) => {
                (upload(device, values)?, upload::<f32>(device, &[])?, TableFormat::F32)
            }
            TableParts::I8(values, scales) => {
                (upload(device, values)?, upload(device, scales)?, TableFormat::I8)
            }
        };
        Ok(Self { device: device.clone(), values, scales, format })
    }
}

/// An adapter in a device's memory: one piece, freed when this is dropped, behind all launches that read it.
#[derive(Debug)]
pub struct ResidentAdapter {
    memory: CudaSlice<u8>,
    slot: DeviceSlot,
}

impl ResidentAdapter {
    /// Copies the adapter's tensors to the device, as they are: factored, in f32.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn upload(device: &CudaDevice, adapter: &AdapterSlot<'_>) -> Result<Self> {
        let (kind, rank, scale, [a, b, bias_a, bias_b]) = match adapter.update {
            UpdateSlot::None => (UpdateKind::None, 0, 0.0, [&[][..]; 4]),
            UpdateSlot::LowRank(pair) => {
                (UpdateKind::LowRank, pair.rank, pair.scale, [pair.a, pair.b, &[], &[]])
            }
            UpdateSlot::Adept(network) => {
                let tensors = [network.a, network.b, network.bias_a, network.bias_b];
                (UpdateKind::Adept, network.bias_a.len(), 1.0, tensors)
            }
        };
        let mut numbers: Vec<f32> = Vec::new();
        let starts = [adapter.prompt, a, b, bias_a, bias_b].map(|tensor| {
            let start = numbers.len().next_multiple_of(ALIGNMENT / size_of::<f32>());
            numbers.resize(start, 0.0);
            numbers.extend_from_slice(tensor);
            start * size_of::<f32>()
        });
        let memory = upload(device, &numbers)?;
        let base = address(device, &memory);
        let [prompt, a, b, bias_a, bias_b] = starts.map(|start| base.offset(start));
        let slot = DeviceSlot {
            prompt,
            a,
            b,
            bias_a,
            bias_b,
            kind: kind as u32,
            rank: rank as u32,
            scale,
            unused: 0,
        };
        Ok(Self { memory, slot })
    }

    /// Bytes that it takes on the device.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }
}

/// What the kernel reads, on the host (where every index is checked) and on the device.
#[derive(Debug, Clone, Copy)]
pub struct ResidentBatch<'a> {
    /// The table.
    pub table: (&'a EmbeddingTable, &'a ResidentTable),
    /// The adapters, by slot.
    pub slots: &'a [(AdapterSlot<'a>, &'a ResidentAdapter)],
}

impl ResidentBatch<'_> {
    /// Embeds `rows` and returns `(rows, d)` on the table's device, in f32.
    ///
    /// # Errors
    /// When any row points outside the table or its slot, or the device fails.
    pub fn embed(&self, rows: &RowTable) -> Result<Tensor> {
        let slots: Vec<AdapterSlot<'_>> = self.slots.iter().map(|(slot, _)| *slot).collect();
        check(self.table.0, &slots, rows).map_err(candle_core::Error::wrap)?;
        let device = &self.table.1.device;
        let plan = EmbedPlan::new(&slots, rows, self.table.0.hidden(), multiprocessors(device)?)
            .map_err(candle_core::Error::wrap)?;
        let shape = (rows.len(), RowTable::WORDS);
        let packed = Tensor::from_slice(rows.packed(), shape, &Device::Cuda(device.clone()))?; // (rows, 3)
        packed.apply_op1_no_bwd(&Planned { batch: self, plan: &plan })
    }
}

/// The op over a packed, checked, planned row table. `(rows, 3) -> (rows, d)`
struct Planned<'a> {
    batch: &'a ResidentBatch<'a>,
    plan: &'a EmbedPlan,
}

impl CustomOp1 for Planned<'_> {
    fn name(&self) -> &'static str {
        "dept-embed"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("dept-embed has its tables on a CUDA device, and its rows on the CPU")
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, table) = (&storage.device, self.batch.table.1);
        let (rows, hidden) = (layout.shape().dims2()?.0, self.batch.table.0.hidden());
        let slots: Vec<DeviceSlot> = self.batch.slots.iter().map(|(_, resident)| resident.slot).collect();
        let (order, tasks) = (upload(device, &self.plan.order)?, upload(device, &self.plan.tasks)?);
        let slots = upload(device, &slots)?;
        // SAFETY: the plan holds every row, so the kernel writes every number.
        let out = unsafe { device.alloc::<f32>(rows * hidden)? };
        let arguments = Arguments {
            rows: address(device, storage.as_cuda_slice::<u32>()?),
            order: address(device, &order),
            tasks: address(device, &tasks),
            slots: address(device, &slots),
            table: address(device, &table.values),
            table_scales: match table.format {
                TableFormat::I8 => address(device, &table.scales),
                TableFormat::F32 | TableFormat::F16 | TableFormat::Bf16 => Address::default(),
            },
            out: address(device, &out),
            hidden: hidden as u32,
            table_format: table.format as u32,
            rank_chunk: self.plan.rank_chunk as u32,
            unused: 0,
        };
        // SAFETY: `embed` has checked every index, the plan follows the rows, and all memory is freed on the stream behind
        // the launch.
        unsafe { launch(device, self.plan.launch(), arguments)? };
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from((rows, hidden))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{
        cuda::device::card,
        dept_embed::{DeltaRow, LowRankSlot, Row, dept_embed},
        pool::ComputePool,
    };

    #[test]
    fn a_batch_on_a_card_has_the_cpus_bits() {
        let Some(Device::Cuda(card)) = card() else { return };
        let (vocab, hidden, s) = (50, 768, 200);
        let noise = |count: usize, seed: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
        };
        let table = EmbeddingTable::f32(vocab, hidden, noise(vocab * hidden, 1)).unwrap();
        let tensors = [(20, 60), (40, 45), (7, 90)]
            .map(|(m, r)| (noise(m * hidden, m), noise(s * r, r), noise(r * hidden, r + 1), r));
        let slots: Vec<AdapterSlot<'_>> = tensors
            .iter()
            .map(|(prompt, a, b, rank)| {
                let update = UpdateSlot::LowRank(LowRankSlot { a, b, rank: *rank, scale: 1.1 });
                AdapterSlot { prompt, update }
            })
            .collect();
        let mut rows = RowTable::default();
        for index in 0..s as u32 {
            for slot in 0..3 {
                rows.push(Row::Token { token: index % 50, delta: Some(DeltaRow { slot, index }) });
            }
            rows.push(Row::Prompt { slot: index % 3, index: index % 7 });
        }
        let expected = dept_embed(&table, &slots, &rows, &ComputePool::serial()).unwrap();
        let resident_table = ResidentTable::upload(&card, &table).unwrap();
        let residents: Vec<ResidentAdapter> =
            slots.iter().map(|slot| ResidentAdapter::upload(&card, slot).unwrap()).collect();
        let held: Vec<_> = slots.iter().copied().zip(&residents).collect();
        let batch = ResidentBatch { table: (&table, &resident_table), slots: &held };
        let found = batch.embed(&rows).unwrap().to_device(&Device::Cpu).unwrap();
        assert_eq!(found.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
    }
}
