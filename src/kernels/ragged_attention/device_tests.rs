//! `ragged_attention.cu` and `key_values.cu`, run on the host, against the reference.

use half::bf16;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    plan::{Arguments, AttentionPlan, WriteArguments, write_launch},
    *,
};
use crate::kernels::cuda::{
    Address, Format, Launch,
    shim::{HostDevice, available},
};

const BLOCKS: u32 = 64;

fn noise(random: &mut SmallRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-1.0f32..1.0)).collect()
}

/// Numbers that the format holds exactly.
fn rounded(mut values: Vec<f32>, format: Format) -> Vec<f32> {
    if format == Format::Bf16 {
        values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
    }
    values
}

/// Uploads numbers in the format.
fn upload(device: &mut HostDevice, values: &[f32], format: Format) -> Address {
    match format {
        Format::F32 => device.upload(values),
        Format::Bf16 => {
            device.upload(&values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect::<Vec<u16>>())
        }
    }
}

/// A matrix on the host and on the device: values, stride, address.
struct Matrix<'a> {
    values: &'a [f32],
    stride: usize,
    address: Address,
}

impl<'a> Matrix<'a> {
    fn part(&self, offset: usize) -> reference::Part<'a> {
        reference::Part { values: self.values, stride: self.stride, offset }
    }
}

/// Runs both kernels over one output and holds them against the reference.
fn compare(
    device: HostDevice,
    attention: &Attention<'_>,
    q: &Matrix<'_>,
    kv: (&Matrix<'_>, [usize; 2]),
    format: Format,
) {
    let width = attention.heads.query_width();
    let expected = reference::attend(attention, q.part(0), kv.0.part(kv.1[0]), kv.0.part(kv.1[1]));
    let [by_rows, by_split] = attend(device, attention, q, kv, format, false);
    // Each kernel writes its own spans' rows and leaves the others as they were: zeros here.
    let bound = if format == Format::F32 { 1e-5 } else { 8e-3 };
    for (at, ((a, b), expected)) in by_rows.iter().zip(&by_split).zip(&expected).enumerate() {
        assert!(*a == 0.0 || *b == 0.0, "row {} is written twice", at / width);
        assert!((a + b - expected).abs() <= bound, "row {}: {a} or {b}, expected {expected}", at / width);
    }
}

/// What each of the two kernels writes.
fn attend(
    mut device: HostDevice,
    attention: &Attention<'_>,
    q: &Matrix<'_>,
    kv: (&Matrix<'_>, [usize; 2]),
    format: Format,
    one_kernel: bool,
) -> [Vec<f32>; 2] {
    let heads = attention.heads;
    let rows = attention.spans.last().map_or(0, |span| span.queries.end);
    attention.check(rows, kv.0.values.len() / kv.0.stride).unwrap();
    let plan = AttentionPlan::new(attention, one_kernel).unwrap();
    let (bias, buckets, max_distance) = match attention.bias {
        None => (Address::default(), Address::default(), 0),
        Some(bias) => {
            let (weight, buckets) = bias.device_tables();
            (device.upload(weight), device.upload(&buckets), (buckets.len() / 2) as u32)
        }
    };
    let count = rows * heads.query_width();
    let mut arguments = Arguments {
        q: q.address,
        keys: kv.0.address.offset(kv.1[0] * format.bytes()),
        values: kv.0.address.offset(kv.1[1] * format.bytes()),
        out: match format {
            Format::F32 => device.output::<f32>(count),
            Format::Bf16 => device.output::<u16>(count),
        },
        blocks: device.upload(&plan.blocks),
        spans: device.upload(&plan.spans),
        tasks: device.upload(&plan.rows),
        bias,
        buckets,
        q_stride: q.stride as u32,
        kv_stride: kv.0.stride as u32,
        heads: heads.heads as u32,
        kv_heads: heads.kv_heads as u32,
        dim: heads.dim as u32,
        block_size: plan.block_size,
        window: attention.window.map_or(u32::MAX, |window| window as u32),
        max_distance,
        scale: attention.scale,
        biased: u32::from(attention.bias.is_some()),
        soft_cap: attention.soft_cap.unwrap_or(0.0),
        unused: 0,
    };
    let [in_rows, split] = plan.launches(heads, format);
    let split_tasks = device.upload(&plan.split);
    let run = |launch: Launch, arguments: Arguments| {
        let run = device.launch(launch, arguments).unwrap();
        match format {
            Format::F32 => run.f32(0),
            Format::Bf16 => run.u16(0).into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        }
    };
    let by_rows = run(in_rows, arguments);
    arguments.tasks = split_tasks;
    [by_rows, run(split, arguments)]
}

fn shape(random: &mut SmallRng) -> HeadShape {
    let dim = [8, 20, 64, 80, 128, 256][random.random_range(0..6)];
    let (kv_heads, group) = (random.random_range(1..3), random.random_range(1..4));
    HeadShape { heads: kv_heads * group, kv_heads, dim }
}

fn relative(random: &mut SmallRng, heads: usize, direction: Direction) -> RelativeBias {
    let shape = BiasShape { buckets: 8, max_distance: 20, heads, direction };
    RelativeBias::new(shape, &noise(random, 8 * heads), 200)
}

#[test]
fn rows_among_themselves_equal_the_reference() {
    if !available() {
        return;
    }
    let pool = ComputePool::serial();
    for seed in 0..10 {
        let random = &mut SmallRng::seed_from_u64(seed);
        let format = if seed % 2 == 0 { Format::F32 } else { Format::Bf16 };
        let heads = shape(random);
        let bias = random.random_bool(0.5).then(|| relative(random, heads.heads, Direction::Both));
        let window = random.random_bool(0.3).then(|| random.random_range(1..40));
        let soft_cap = random.random_bool(0.5).then(|| random.random_range(0.2..3.0));
        let causal = random.random_bool(0.3);
        let mut start = 0;
        let spans: Vec<Span<'_>> = (0..random.random_range(1..4))
            .map(|_| {
                let length = random.random_range(0..45);
                let queries = start..start + length;
                let keys = Keys::Rows { start };
                start += length;
                Span { queries, first_position: 0, context: length, keys, causal }
            })
            .collect();
        let (q_width, kv_width) = (heads.query_width(), heads.kv_width());
        let stride = q_width + 2 * kv_width;
        let values = rounded(noise(random, start * stride), format);
        let mut device = HostDevice::default();
        let address = upload(&mut device, &values, format);
        let qkv = Matrix { values: &values, stride, address };
        let attention = Attention {
            heads,
            scale: 0.7,
            soft_cap,
            bias: bias.as_ref(),
            window,
            spans: &spans,
            pool: &pool,
            tables: None,
        };
        compare(device, &attention, &qkv, (&qkv, [q_width, q_width + kv_width]), format);
    }
}

#[test]
fn paged_keys_equal_the_reference() {
    if !available() {
        return;
    }
    let pool = ComputePool::serial();
    for seed in 100..112 {
        let random = &mut SmallRng::seed_from_u64(seed);
        let format = if seed % 2 == 0 { Format::F32 } else { Format::Bf16 };
        let heads = shape(random);
        let bias = random.random_bool(0.5).then(|| relative(random, heads.heads, Direction::Past));
        let window = random.random_bool(0.3).then(|| random.random_range(1..40));
        let soft_cap = random.random_bool(0.5).then(|| random.random_range(0.2..3.0));
        let block_size = random.random_range(3..9);
        let mut free: Vec<BlockId> = (0..BLOCKS).map(BlockId::new).collect();
        // (queries, past, causal): decodes of one row, pieces of prompts, and a decoder's look at its encoder.
        let shapes: [(usize, usize, bool); 5] =
            [(1, 70, true), (1, 0, true), (3, 20, true), (12, 33, true), (2, 40, false)];
        let tables: Vec<Vec<BlockId>> = shapes
            .iter()
            .map(|&(queries, past, _)| {
                (0..(queries + past).div_ceil(block_size)).map(|_| free.pop().unwrap()).collect()
            })
            .collect();
        let mut start = 0;
        let spans: Vec<Span<'_>> = shapes
            .iter()
            .zip(&tables)
            .map(|(&(queries, past, causal), blocks)| {
                let rows = start..start + queries;
                start = rows.end;
                let keys = Keys::Blocks { blocks, block_size };
                Span { queries: rows, first_position: past, context: past + queries, keys, causal }
            })
            .collect();
        let (q_stride, kv_width) = (heads.query_width() + 4, heads.kv_width());
        let q = rounded(noise(random, start * q_stride), format);
        let slab = rounded(noise(random, BLOCKS as usize * block_size * 2 * kv_width), format);
        let mut device = HostDevice::default();
        let q = Matrix { values: &q, stride: q_stride, address: upload(&mut device, &q, format) };
        let kv = Matrix { values: &slab, stride: 2 * kv_width, address: upload(&mut device, &slab, format) };
        let attention = Attention {
            heads,
            scale: 0.5,
            soft_cap,
            bias: bias.as_ref(),
            window,
            spans: &spans,
            pool: &pool,
            tables: None,
        };
        compare(device, &attention, &q, (&kv, [0, kv_width]), format);
    }
}

/// What `--batch-invariant` relies on.
#[test]
fn by_one_kernel_a_row_has_the_same_bits_alone_and_in_a_prompt() {
    if !available() {
        return;
    }
    let pool = &ComputePool::serial();
    for (seed, window) in [(200, None), (201, Some(37)), (202, None)] {
        let random = &mut SmallRng::seed_from_u64(seed);
        let (heads, format, block_size) = (shape(random), Format::F32, 8);
        let bias = relative(random, heads.heads, Direction::Past);
        let blocks: Vec<BlockId> = (0..20).rev().map(BlockId::new).collect();
        let (past, count, width) = (61, 23, heads.query_width());
        let q = noise(random, count * width);
        let slab = noise(random, blocks.len() * block_size * 2 * heads.kv_width());
        let run = |rows: std::ops::Range<usize>| {
            let keys = Keys::Blocks { blocks: &blocks, block_size };
            let context = past + rows.end;
            let first_position = past + rows.start;
            let spans = [Span { queries: 0..rows.len(), first_position, context, keys, causal: true }];
            let (bias, tables) = (Some(&bias), None);
            let attention =
                Attention { heads, scale: 0.5, soft_cap: None, bias, window, spans: &spans, pool, tables };
            let mut device = HostDevice::default();
            let q = &q[rows.start * width..rows.end * width];
            let q = Matrix { values: q, stride: width, address: upload(&mut device, q, format) };
            let address = upload(&mut device, &slab, format);
            let kv = Matrix { values: &slab, stride: 2 * heads.kv_width(), address };
            let [by_rows, by_split] =
                attend(device, &attention, &q, (&kv, [0, heads.kv_width()]), format, true);
            assert!(by_rows.iter().all(|&x| x == 0.0));
            by_split
        };
        let whole = run(0..count);
        for piece in [0..1, 1..2, 2..9, 9..22, 22..23] {
            assert_eq!(
                run(piece.clone()),
                whole[piece.start * width..piece.end * width],
                "{heads:?} {piece:?}"
            );
        }
    }
}

#[test]
fn buckets_by_distance_are_those_of_the_bias() {
    for direction in [Direction::Both, Direction::Past] {
        let shape = BiasShape { buckets: 32, max_distance: 128, heads: 1, direction };
        let buckets = shape.buckets_by_distance();
        for relative in -300i64..=300 {
            assert_eq!(buckets[(relative.clamp(-128, 128) + 128) as usize] as usize, shape.bucket(relative));
        }
    }
}

#[test]
fn heads_that_no_kernel_takes_are_an_error() {
    for (dim, fits) in [(64, true), (256, true), (66, false), (260, false)] {
        let heads = HeadShape { heads: 1, kv_heads: 1, dim };
        let pool = &ComputePool::serial();
        let attention = Attention {
            heads,
            scale: 1.0,
            soft_cap: None,
            bias: None,
            window: None,
            spans: &[],
            pool,
            tables: None,
        };
        assert_eq!(AttentionPlan::new(&attention, false).is_ok(), fits, "{dim}");
    }
}

#[test]
fn key_values_are_written_where_the_slots_say() {
    if !available() {
        return;
    }
    let (rows, stride, width) = (5usize, 20usize, 12usize);
    let slots = [7u32, 0, 3, 8, 2];
    let source: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
    let mut slab = vec![-1.0f32; 9 * width];
    let mut device = HostDevice::default();
    let arguments = WriteArguments {
        source: device.upload(&source),
        slab: device.upload_mutable(&slab),
        slots: device.upload(&slots),
        rows: rows as u32,
        stride: (stride / 2) as u32,
        width: (width / 2) as u32,
        unused: 0,
    };
    let found = device.launch(write_launch(rows), arguments).unwrap().f32(0);
    for (row, &slot) in source.chunks(stride).zip(&slots) {
        slab[slot as usize * width..][..width].copy_from_slice(&row[stride - width..]);
    }
    assert_eq!(found, slab);
}
