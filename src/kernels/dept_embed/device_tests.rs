//! `dept_embed.cu`, run on the host, against the reference and, in f32, against the CPU kernel's bits.

use half::{bf16, f16};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};

use super::{
    plan::{Arguments, DeviceSlot, EmbedPlan, TableFormat, UpdateKind},
    *,
};
use crate::kernels::cuda::{
    Address,
    shim::{HostDevice, Run, available},
};

const VOCAB: usize = 53;

/// The tensors of one adapter: P, A, B, a, b, and the rank.
struct Adapter {
    tensors: [Vec<f32>; 5],
    rank: usize,
    kind: UpdateKind,
}

impl Adapter {
    fn new(
        random: &mut SmallRng,
        hidden: usize,
        (m, s, rank): (usize, usize, usize),
        kind: UpdateKind,
    ) -> Self {
        let lengths = match kind {
            UpdateKind::None => [m * hidden, 0, 0, 0, 0],
            UpdateKind::LowRank => [m * hidden, s * rank, rank * hidden, 0, 0],
            UpdateKind::Adept => [m * hidden, hidden * rank, rank * hidden, rank, hidden],
        };
        // ADePT's sums run over the whole width: small factors keep them near the embeddings.
        let size = if kind == UpdateKind::Adept { 0.1 } else { 1.0 };
        Self { tensors: lengths.map(|length| noise(random, length, size)), rank, kind }
    }

    fn slot(&self) -> AdapterSlot<'_> {
        let [prompt, a, b, bias_a, bias_b] = &self.tensors;
        let update = match self.kind {
            UpdateKind::None => UpdateSlot::None,
            UpdateKind::LowRank => {
                UpdateSlot::LowRank(LowRankSlot { a, b, rank: self.rank, scale: self.scale() })
            }
            UpdateKind::Adept => UpdateSlot::Adept(AdeptSlot { a, bias_a, b, bias_b }),
        };
        AdapterSlot { prompt, update }
    }

    fn scale(&self) -> f32 {
        8.0 / (self.rank as f32).sqrt()
    }

    fn upload(&self, device: &mut HostDevice) -> DeviceSlot {
        let [prompt, a, b, bias_a, bias_b] = self.tensors.each_ref().map(|values| device.upload(values));
        let (kind, rank) = (self.kind as u32, self.rank as u32);
        DeviceSlot { prompt, a, b, bias_a, bias_b, kind, rank, scale: self.scale(), unused: 0 }
    }
}

fn noise(random: &mut SmallRng, count: usize, size: f32) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-size..size)).collect()
}

/// A table in a device's format, and its twin on the host with the very same numbers.
fn table(
    random: &mut SmallRng,
    device: &mut HostDevice,
    hidden: usize,
    format: TableFormat,
) -> (EmbeddingTable, [Address; 2]) {
    let values = noise(random, VOCAB * hidden, 2.0);
    let widened = |values: Vec<f32>| EmbeddingTable::f32(VOCAB, hidden, values).unwrap();
    match format {
        TableFormat::F32 => {
            let address = device.upload(&values);
            (widened(values), [address, Address::default()])
        }
        TableFormat::F16 => {
            let bits: Vec<u16> = values.iter().map(|&x| f16::from_f32(x).to_bits()).collect();
            let address = device.upload(&bits);
            let values = bits.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect();
            (widened(values), [address, Address::default()])
        }
        TableFormat::Bf16 => {
            let bits: Vec<u16> = values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
            let address = device.upload(&bits);
            let values = bits.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect();
            (widened(values), [address, Address::default()])
        }
        TableFormat::I8 => {
            let bytes: Vec<i8> = values.iter().map(|x| (x * 63.0) as i8).collect();
            let scales = noise(random, VOCAB, 0.1);
            let addresses = [device.upload(&bytes), device.upload(&scales)];
            (EmbeddingTable::i8(VOCAB, hidden, bytes, scales).unwrap(), addresses)
        }
    }
}

/// The rows of sequences of `(slot, tokens)`, the bare model's without a slot.
fn batch(
    random: &mut SmallRng,
    adapters: &[Adapter],
    sequences: &[(Option<usize>, usize)],
    hidden: usize,
) -> RowTable {
    let mut rows = RowTable::default();
    for &(slot, tokens) in sequences {
        if let Some(slot) = slot {
            let prompt_length = (adapters[slot].tensors[0].len() / hidden) as u32;
            (0..prompt_length).for_each(|index| rows.push(Row::Prompt { slot: slot as u32, index }));
        }
        let updated = slot.filter(|&slot| adapters[slot].kind != UpdateKind::None);
        for index in 0..tokens as u32 {
            let delta = updated.map(|slot| DeltaRow { slot: slot as u32, index });
            rows.push(Row::Token { token: random.random_range(0..VOCAB as u32), delta });
        }
    }
    rows
}

/// Runs the kernel as planned for a device that `blocks` blocks keep busy.
fn run(
    mut device: HostDevice,
    adapters: &[Adapter],
    rows: &RowTable,
    (hidden, format, [table, table_scales]): (usize, TableFormat, [Address; 2]),
    blocks: usize,
) -> Run {
    let slots: Vec<AdapterSlot<'_>> = adapters.iter().map(Adapter::slot).collect();
    let plan = EmbedPlan::new(&slots, rows, hidden, blocks).unwrap();
    let device_slots: Vec<DeviceSlot> = adapters.iter().map(|adapter| adapter.upload(&mut device)).collect();
    let arguments = Arguments {
        rows: device.upload(rows.packed()),
        order: device.upload(&plan.order),
        tasks: device.upload(&plan.tasks),
        slots: device.upload(&device_slots),
        table,
        table_scales,
        out: device.output::<f32>(rows.len() * hidden),
        hidden: hidden as u32,
        table_format: format as u32,
        rank_chunk: plan.rank_chunk as u32,
        unused: 0,
    };
    device.launch(plan.launch(), arguments).unwrap()
}

#[test]
fn random_batches_equal_the_reference_and_the_cpu_kernels_bits() {
    if !available() {
        return;
    }
    let formats = [TableFormat::F32, TableFormat::F16, TableFormat::Bf16, TableFormat::I8];
    for seed in 0..24 {
        let random = &mut SmallRng::seed_from_u64(seed);
        let format = formats[seed as usize % formats.len()];
        let hidden = [64, 72, 256, 300, 516][random.random_range(0..5)];
        let kinds = [UpdateKind::None, UpdateKind::LowRank, UpdateKind::LowRank, UpdateKind::Adept];
        let adapters: Vec<Adapter> = (0..random.random_range(1..6))
            .map(|_| {
                // Ranks beyond 64 go through shared memory in several chunks.
                let shape = (random.random_range(0..6), 90, random.random_range(1..100));
                let kind = kinds[random.random_range(0..4)];
                Adapter::new(random, hidden, shape, kind)
            })
            .collect();
        let mut sequences: Vec<_> = (0..adapters.len()).map(Some).chain([None, Some(0)]).collect();
        sequences.shuffle(random);
        let sequences: Vec<_> =
            sequences.into_iter().map(|slot| (slot, random.random_range(0..90))).collect();
        let rows = batch(random, &adapters, &sequences, hidden);
        let mut device = HostDevice::default();
        let (table, addresses) = table(random, &mut device, hidden, format);
        let slots: Vec<AdapterSlot<'_>> = adapters.iter().map(Adapter::slot).collect();
        check(table.shape(), &slots, &rows).unwrap();

        let found = run(device, &adapters, &rows, (hidden, format, addresses), seed as usize * 3).f32(0);
        for (at, (found, expected)) in
            found.iter().zip(reference::dept_embed(&table, &slots, &rows)).enumerate()
        {
            let bound = 1e-5 * expected.abs().max(1.0);
            assert!((found - expected).abs() <= bound, "seed {seed}, at {at}: {found}, expected {expected}");
        }
        let cpu = dept_embed(&table, &slots, &rows, &ComputePool::serial()).unwrap();
        let cpu = cpu.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let differs = found.iter().zip(&cpu).position(|(found, cpu)| found.to_bits() != cpu.to_bits());
        assert_eq!(differs, None, "seed {seed}: {found:?} {cpu:?}");
    }
}

#[test]
fn a_batch_moves_little_more_than_each_byte_once() {
    if !available() {
        return;
    }
    // T5-base's width; adapters of the paper's sizes; a prefill of about 2,000 rows.
    let hidden = 768;
    let random = &mut SmallRng::seed_from_u64(7);
    let adapters: Vec<Adapter> = [(60, 30), (40, 45), (20, 60), (60, 30), (40, 45), (20, 60)]
        .map(|(m, rank)| Adapter::new(random, hidden, (m, 256, rank), UpdateKind::LowRank))
        .into();
    let sequences = [
        (Some(0), 256),
        (Some(1), 200),
        (Some(2), 256),
        (None, 90),
        (Some(3), 131),
        (Some(4), 250),
        (Some(5), 180),
        (Some(1), 120),
        (Some(2), 64),
    ];
    let rows = batch(random, &adapters, &sequences, hidden);
    // What has to move: each row in and out, and once what the updates read.
    let updates: usize = sequences
        .iter()
        .filter_map(|&(slot, tokens)| Some(tokens * adapters[slot?].rank))
        .chain(adapters.iter().map(|adapter| adapter.rank * hidden))
        .sum();
    let least = 4 * (2 * rows.len() * hidden + updates + rows.len() * RowTable::WORDS);
    for blocks in [1, 24, 132] {
        let mut device = HostDevice::default();
        let (_, addresses) = table(random, &mut device, hidden, TableFormat::F32);
        let found = run(device, &adapters, &rows, (hidden, TableFormat::F32, addresses), blocks);
        let ratio = (found.loaded + found.stored) as f64 / least as f64;
        println!(
            "{} rows, {blocks} blocks: {} bytes moved, {ratio:.3} of the least",
            rows.len(),
            found.loaded + found.stored
        );
        assert!(ratio <= 1.15, "{ratio}");
        assert_eq!(found.stored as usize, 4 * rows.len() * hidden);
    }
}

#[test]
fn a_plan_holds_every_row_once_and_cuts_for_the_device() {
    let random = &mut SmallRng::seed_from_u64(3);
    let adapters = [
        Adapter::new(random, 520, (2, 300, 7), UpdateKind::LowRank),
        Adapter::new(random, 520, (3, 1, 0), UpdateKind::None),
        Adapter::new(random, 520, (0, 1, 90), UpdateKind::Adept),
    ];
    let rows = batch(random, &adapters, &[(Some(2), 70), (Some(0), 300), (Some(1), 20), (None, 5)], 520);
    let slots: Vec<AdapterSlot<'_>> = adapters.iter().map(Adapter::slot).collect();
    let tasks = |blocks| EmbedPlan::new(&slots, &rows, 520, blocks).unwrap();
    let plan = tasks(1);
    let mut order = plan.order.clone();
    order.sort_unstable();
    assert_eq!(order, (0..400).collect::<Vec<u32>>());
    assert_eq!(plan.rank_chunk, 64, "shared memory bounds the chunk");
    let of = |plan: &EmbedPlan, slot| -> Vec<[u32; 3]> {
        let tasks = plan.tasks.iter().filter(|task| task.slot == slot);
        tasks.map(|task| [task.count, task.strip, task.strips]).collect()
    };
    assert_eq!(of(&plan, u32::MAX), [[16, 0, 3], [14, 0, 3]], "prompts, plain rows, rows without an update");
    assert_eq!(of(&plan, 0), [[256, 0, 1], [256, 1, 1], [256, 2, 1], [44, 0, 1], [44, 1, 1], [44, 2, 1]]);
    assert_eq!(of(&plan, 2), [[64, 0, 3], [6, 0, 3]], "ADePT's units are made once for all strips");
    assert_eq!(of(&tasks(1000), 0).len(), 3 * 300_usize.div_ceil(128));
    assert_eq!(EmbedPlan::new(&[], &RowTable::default(), 6, 1), Err(DeptEmbedError::Hidden { hidden: 6 }));
}
