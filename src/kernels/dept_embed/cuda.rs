//! The op on a CUDA device, whose tables and adapters are resident there.

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, DType, Device, Result, Shape, Tensor,
    cuda::cudarc::driver::CudaSlice,
};
use half::bf16;

use super::{
    AdapterSlot, Adapters, EmbeddingTable, RowTable, UpdateSlot, check,
    plan::{Arguments, DeviceSlot, EmbedPlan, TableFormat, UpdateKind},
    table::{TableParts, TableShape},
};
use crate::kernels::cuda::{
    Address, Format,
    device::{address, fill, launch, multiprocessors, upload},
};

/// Where the tensors of an adapter start inside of its memory: vectors of 16 bytes, and whole sectors of a card's memory.
const ALIGNMENT: usize = 32;

/// An embedding table in a device's memory.
#[derive(Debug)]
pub(super) struct ResidentTable {
    device: CudaDevice,
    shape: TableShape,
    values: CudaSlice<u8>,
    scales: CudaSlice<u8>,
    format: TableFormat,
}

impl ResidentTable {
    /// Copies the table to the device: 8-bit rows as they are, others in `dtype`.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn upload(device: &CudaDevice, table: &EmbeddingTable, dtype: DType) -> Result<Self> {
        let none = || upload::<f32>(device, &[]);
        let (values, scales, format) = match table.parts() {
            TableParts::F32(values) if dtype == DType::BF16 => {
                let rounded: Vec<u16> = values.iter().map(|&value| bf16::from_f32(value).to_bits()).collect();
                (upload(device, &rounded)?, none()?, TableFormat::Bf16)
            }
            TableParts::F32(values) => (upload(device, &values)?, none()?, TableFormat::F32),
            TableParts::I8(values, scales) => {
                (upload(device, values)?, upload(device, scales)?, TableFormat::I8)
            }
        };
        Ok(Self { device: device.clone(), shape: table.shape(), values, scales, format })
    }
}

/// Where the tensors of an adapter lie in its piece of memory.
#[derive(Debug)]
pub(super) struct Layout {
    /// Of P, A, B and ADePT's two biases, in bytes.
    starts: [usize; 5],
    /// In all.
    pub bytes: usize,
    kind: UpdateKind,
    rank: usize,
    scale: f32,
}

impl Layout {
    pub fn of(adapter: &AdapterSlot<'_>) -> Self {
        let (kind, rank, scale) = match adapter.update {
            UpdateSlot::None => (UpdateKind::None, 0, 0.0),
            UpdateSlot::LowRank(pair) => (UpdateKind::LowRank, pair.rank, pair.scale),
            UpdateSlot::Adept(network) => (UpdateKind::Adept, network.bias_a.len(), 1.0),
        };
        let mut bytes = 0usize;
        let starts = tensors(adapter).map(|tensor| {
            let start = bytes.next_multiple_of(ALIGNMENT);
            bytes = start + size_of_val(tensor);
            start
        });
        Self { starts, bytes, kind, rank, scale }
    }

    /// The adapter's numbers, laid out.
    pub fn numbers(&self, adapter: &AdapterSlot<'_>) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(self.bytes / size_of::<f32>());
        for (tensor, start) in tensors(adapter).into_iter().zip(self.starts) {
            numbers.resize(start / size_of::<f32>(), 0.0);
            numbers.extend_from_slice(tensor);
        }
        numbers
    }

    /// The adapter as it lies at `base`, in memory of the pool.
    pub fn at(&self, base: Address) -> Held {
        let [prompt, a, b, bias_a, bias_b] = self.starts.map(|start| base.offset(start));
        let (kind, rank) = (self.kind as u32, self.rank as u32);
        let slot = DeviceSlot { prompt, a, b, bias_a, bias_b, kind, rank, scale: self.scale, unused: 0 };
        Held { slot, own: None }
    }

    /// The adapter in memory of its own.
    pub fn own(&self, device: &CudaDevice, memory: CudaSlice<u8>) -> Held {
        let Held { slot, .. } = self.at(address(device, &memory));
        Held { slot, own: Some(memory) }
    }
}

fn tensors<'a>(adapter: &AdapterSlot<'a>) -> [&'a [f32]; 5] {
    let [a, b, bias_a, bias_b] = match adapter.update {
        UpdateSlot::None => [&[][..]; 4],
        UpdateSlot::LowRank(pair) => [pair.a, pair.b, &[], &[]],
        UpdateSlot::Adept(network) => [network.a, network.b, network.bias_a, network.bias_b],
    };
    [adapter.prompt, a, b, bias_a, bias_b]
}

/// An adapter in the device's memory, for one step: of the pool's, or its own, freed behind the kernels that read it.
#[derive(Debug)]
pub struct Held {
    slot: DeviceSlot,
    #[expect(dead_code, reason = "it is held, not read")]
    own: Option<CudaSlice<u8>>,
}

/// Embeds `rows` and returns `(rows, d)` on the table's device, in f32.
///
/// # Errors
/// When any row points outside the table or its slot, the adapters are not on the device, or it fails.
pub(super) fn embed(table: &ResidentTable, adapters: &Adapters<'_>, rows: &RowTable) -> Result<Tensor> {
    let Adapters { slots, held } = adapters;
    if slots.len() != held.len() {
        candle_core::bail!("{} of {} adapters are on the device", held.len(), slots.len())
    }
    check(table.shape, slots, rows).map_err(candle_core::Error::wrap)?;
    let device = &table.device;
    let plan = EmbedPlan::new(slots, rows, table.shape.hidden, multiprocessors(device)?)
        .map_err(candle_core::Error::wrap)?;
    let shape = (rows.len(), RowTable::WORDS);
    let packed = Tensor::from_slice(rows.packed(), shape, &Device::Cuda(device.clone()))?; // (rows, 3)
    packed.apply_op1_no_bwd(&Planned { table, held, plan: &plan })
}

/// The op over a packed, checked, planned row table. `(rows, 3) -> (rows, d)`
struct Planned<'a> {
    table: &'a ResidentTable,
    held: &'a [Held],
    plan: &'a EmbedPlan,
}

impl CustomOp1 for Planned<'_> {
    fn name(&self) -> &'static str {
        "dept-embed"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &candle_core::Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("dept-embed has its tables on a CUDA device, and its rows on the CPU")
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &candle_core::Layout) -> Result<(CudaStorage, Shape)> {
        let (device, table) = (&storage.device, self.table);
        let (rows, hidden) = (layout.shape().dims2()?.0, table.shape.hidden);
        let slots: Vec<DeviceSlot> = self.held.iter().map(|held| held.slot).collect();
        let (order, tasks) = (upload(device, &self.plan.order)?, upload(device, &self.plan.tasks)?);
        let slots = upload(device, &slots)?;
        let rows_there = address(device, storage.as_cuda_slice::<u32>()?);
        let arguments = |out| Arguments {
            rows: rows_there,
            order: address(device, &order),
            tasks: address(device, &tasks),
            slots: address(device, &slots),
            table: address(device, &table.values),
            table_scales: match table.format {
                TableFormat::I8 => address(device, &table.scales),
                TableFormat::F32 | TableFormat::F16 | TableFormat::Bf16 => Address::default(),
            },
            out,
            hidden: hidden as u32,
            table_format: table.format as u32,
            rank_chunk: self.plan.rank_chunk as u32,
            unused: 0,
        };
        // The plan holds every row, so the kernel writes every number.
        let out = fill(device, Format::F32, rows * hidden, |out| {
            // SAFETY: `embed` has checked every index, the plan follows the rows, and all memory is freed on the stream
            // behind the launch.
            unsafe { launch(device, self.plan.launch(), arguments(out)) }
        })?;
        Ok((out, Shape::from((rows, hidden))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Condvar, Mutex};

    use super::*;
    use crate::kernels::{
        DensePlace, Place,
        cuda::device::card,
        dept_embed::{
            AdapterSource, Claim, DeltaRow, LowRankSlot, PlacedTable, ResidentAdapters, ResidentUse, Row,
            Wanted, dept_embed,
        },
        pool::ComputePool,
    };

    const HIDDEN: usize = 768;
    const S: usize = 200;

    fn noise(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    /// An adapter whose request can be waited with.
    struct Adapter {
        tensors: [Vec<f32>; 3],
        rank: usize,
        claim: Mutex<Claim>,
        on_device: Mutex<bool>,
        moved: Condvar,
    }

    impl Adapter {
        fn new(m: usize, rank: usize) -> Arc<Self> {
            let tensors = [noise(m * HIDDEN, m), noise(S * rank, rank), noise(rank * HIDDEN, rank + 1)];
            let (claim, on_device) = (Mutex::new(Claim::Leased), Mutex::new(false));
            Arc::new(Self { tensors, rank, claim, on_device, moved: Condvar::new() })
        }

        fn wanted(self: &Arc<Self>, id: u64) -> Wanted<'_> {
            let weak: std::sync::Weak<Self> = Arc::downgrade(self);
            Wanted { id, slot: self.slot(), source: weak }
        }

        fn wait(&self, on_device: bool) {
            let there = self.on_device.lock().unwrap();
            drop(self.moved.wait_while(there, |there| *there != on_device).unwrap());
        }
    }

    impl AdapterSource for Adapter {
        fn slot(&self) -> AdapterSlot<'_> {
            let [prompt, a, b] = &self.tensors;
            AdapterSlot {
                prompt,
                update: UpdateSlot::LowRank(LowRankSlot { a, b, rank: self.rank, scale: 1.1 }),
            }
        }

        fn claim(&self) -> Claim {
            *self.claim.lock().unwrap()
        }

        fn moved(&self, on_device: bool) {
            *self.on_device.lock().unwrap() = on_device;
            self.moved.notify_all();
        }
    }

    /// A batch over three adapters, with what the CPU makes of it, and a pool of some size.
    struct Bench {
        place: Place,
        table: PlacedTable,
        adapters: [Arc<Adapter>; 3],
        rows: RowTable,
        expected: Vec<Vec<f32>>,
    }

    impl Bench {
        fn new() -> Option<Self> {
            let device = card()?;
            let vocab = 50;
            let table = EmbeddingTable::f32(vocab, HIDDEN, noise(vocab * HIDDEN, 1)).unwrap();
            let adapters = [(20, 60), (40, 45), (7, 90)].map(|(m, r)| Adapter::new(m, r));
            let mut rows = RowTable::default();
            for index in 0..S as u32 {
                for slot in 0..3 {
                    rows.push(Row::Token { token: index % 50, delta: Some(DeltaRow { slot, index }) });
                }
                rows.push(Row::Prompt { slot: index % 3, index: index % 7 });
            }
            let slots = adapters.each_ref().map(|adapter| adapter.slot());
            let expected = dept_embed(&table, &slots, &rows, &ComputePool::serial()).unwrap();
            let expected = expected.to_vec2::<f32>().unwrap();
            let place = Place::Dense(DensePlace { device, dtype: DType::F32, invariant: false });
            let table = PlacedTable::new(table, &place).unwrap();
            Some(Self { place, table, adapters, rows, expected })
        }

        fn wanted(&self) -> impl Iterator<Item = Wanted<'_>> {
            (0..).zip(&self.adapters).map(|(id, adapter)| adapter.wanted(id))
        }

        /// A step over all three has the CPU's bits.
        fn step(&self, pool: &mut ResidentAdapters) {
            pool.begin_step();
            let held = pool.hold(self.wanted().collect()).unwrap();
            let found = self.table.embed(&held, &self.rows, &ComputePool::serial()).unwrap();
            let found = found.to_device(&Device::Cpu).unwrap();
            assert!(found.to_vec2::<f32>().unwrap() == self.expected);
        }
    }

    #[test]
    fn adapters_fetched_beforehand_are_read_where_they_are() {
        let Some(bench) = Bench::new() else { return };
        let mut pool = ResidentAdapters::new(&bench.place, 8 << 20).unwrap();
        let prefetch = pool.prefetch();
        bench.wanted().for_each(|wanted| prefetch.bring(wanted));
        bench.adapters.iter().for_each(|adapter| adapter.wait(true));
        let there = pool.resident_use();
        let sizes =
            bench.adapters.iter().map(|adapter| Layout::of(&adapter.slot()).bytes.next_multiple_of(256));
        assert_eq!(there, ResidentUse { adapters: 3, bytes: sizes.sum(), evictions: 0 });
        for _ in 0..3 {
            bench.step(&mut pool);
        }
        assert_eq!(pool.resident_use(), there);
    }

    #[test]
    fn what_is_not_there_is_copied_for_its_step() {
        let Some(bench) = Bench::new() else { return };
        let mut none = ResidentAdapters::new(&bench.place, 0).unwrap();
        bench.step(&mut none);
        assert_eq!(none.resident_use(), ResidentUse::default());
        // Room for one at a time: the first keeps it for as long as its request holds it.
        let mut pool = ResidentAdapters::new(&bench.place, 400 << 10).unwrap();
        bench.step(&mut pool);
        bench.adapters[0].wait(true);
        bench.step(&mut pool);
        assert_eq!((pool.resident_use().adapters, pool.resident_use().evictions), (1, 0));
        *bench.adapters[0].claim.lock().unwrap() = Claim::Pinned;
        // The step before this one used it; behind this one it may go, and comes back later.
        bench.step(&mut pool);
        pool.begin_step();
        drop(pool.hold(bench.wanted().skip(1).collect()).unwrap());
        bench.adapters[1].wait(true);
        assert!(!*bench.adapters[0].on_device.lock().unwrap());
        bench.step(&mut pool);
        assert_eq!((pool.resident_use().adapters, pool.resident_use().evictions), (1, 1));
    }
}
