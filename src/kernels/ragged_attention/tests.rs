use std::num::NonZeroUsize;

use candle_core::{DType, Device, Tensor};
use half::f16;
use proptest::prelude::*;

use super::*;
use crate::kernels::miri::{runs, unless_miri};
use crate::kv::BlockCopy;

fn noise(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 2e-5, "at {at}: expected {expected}, found {found}");
    }
}

fn shape() -> impl Strategy<Value = HeadShape> {
    (
        1usize..4,
        1usize..3,
        prop_oneof![Just(8usize), Just(16), Just(20), Just(unless_miri(64, 8)), Just(unless_miri(80, 20))],
    )
        .prop_map(|(kv_heads, group, dim)| HeadShape { heads: kv_heads * group, kv_heads, dim })
}

/// A sequence of a batch: its block table, where its queries start, how many there are, and what it sees.
struct Case {
    table: Vec<BlockId>,
    queries: Range<usize>,
    past: usize,
    causal: bool,
}

/// Sequences of (queries, past positions), whose tables run backwards through a slab and never touch.
fn cases(sequences: &[(usize, usize, bool)], block_size: usize) -> (Vec<Case>, usize) {
    let mut free = 0;
    let mut start = 0;
    let cases = sequences.iter().map(|&(queries, past, causal)| {
        let blocks = (queries + past).div_ceil(block_size);
        let table = (free..free + blocks).rev().map(|block| BlockId::new(block as u32)).collect();
        free += blocks;
        start += queries;
        Case { table, queries: start - queries..start, past, causal }
    });
    (cases.collect(), free * block_size)
}

proptest! {
    #![proptest_config(runs(96))]

    #[test]
    fn every_width_gives_the_same_bits_and_the_references_values(
        (heads, dim) in (
            (1usize..4, prop_oneof![Just(1usize), Just(2), Just(3), Just(5), Just(7)]),
            prop_oneof![Just(unless_miri(64usize, 16)), Just(32), Just(80), Just(96), Just(128), 1usize..150],
        ),
        sequences in prop::collection::vec(
            (prop_oneof![Just(1usize), 1usize..unless_miri(40, 9)], 0usize..unless_miri(90, 30), any::<bool>()),
            1..unless_miri(5, 3),
        ),
        block_size in prop_oneof![Just(16usize), 1usize..20],
        window in prop::option::of(1usize..60),
        biased: bool,
        halves: bool,
        soft_cap in prop::option::of(0.1f32..4.0),
    ) {
        let heads = HeadShape { heads: heads.0 * heads.1, kv_heads: heads.0, dim };
        let (cases, slots) = cases(&sequences, block_size);
        let spans: Vec<Span<'_>> = cases.iter().map(|case| Span {
            queries: case.queries.clone(),
            first_position: case.past,
            context: case.past + case.queries.len(),
            keys: Keys::Blocks { blocks: &case.table, block_size },
            causal: case.causal,
        }).collect();
        let bias = biased.then(|| relative(heads.heads, Direction::Both, 160));
        let pool = ComputePool::new(NonZeroUsize::new(2).unwrap()).unwrap();
        let attention = Attention { heads, scale: 0.3, soft_cap, bias: bias.as_ref(), window, spans: &spans, pool: &pool, tables: None };
        let rows = spans.last().unwrap().queries.end;
        let (q_width, kv_width) = (heads.query_width(), heads.kv_width());
        let (q, slab) = (noise(rows * q_width, 2), noise(slots * 2 * kv_width, 3));
        let short: Vec<f16> = slab.iter().map(|&x| f16::from_f32(x)).collect();
        let slab = if halves { short.iter().map(|x| x.to_f32()).collect() } else { slab };
        let q_rows = cpu::Rows { values: &q, stride: q_width, offset: 0 };
        let run = |width, numbers| {
            let kv = cpu::KeyValues { numbers, stride: 2 * kv_width, keys: 0, values: kv_width };
            cpu::attend(&attention, width, (q_rows, kv))
        };
        let plain = run(simd::Width::Portable, Numbers::F32(&slab));
        for &width in simd::widths() {
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let numbers = if halves { Numbers::F16(&short) } else { Numbers::F32(&slab) };
            prop_assert_eq!(bits(&run(width, numbers)), bits(&plain), "{:?}", width);
        }
        let part = |values, stride, offset| reference::Part { values, stride, offset };
        let (k, v) = (part(&slab[..], 2 * kv_width, 0), part(&slab[..], 2 * kv_width, kv_width));
        close(&plain, &reference::attend(&attention, part(&q[..], q_width, 0), k, v));
    }
}

fn relative(heads: usize, direction: Direction, reach: usize) -> RelativeBias {
    let shape = BiasShape { buckets: 8, max_distance: 20, heads, direction };
    RelativeBias::new(shape, &noise(8 * heads, 5), reach)
}

proptest! {
    #![proptest_config(runs(48))]

    #[test]
    fn rows_among_themselves_equal_the_reference(
        heads in shape(),
        lengths in prop::collection::vec(0usize..40, 1..5),
        causal: bool,
        biased: bool,
        window in prop::option::of(1usize..30),
        soft_cap in prop::option::of(0.1f32..4.0),
        threads in 1usize..3,
    ) {
        let pool = ComputePool::new(NonZeroUsize::new(threads).unwrap()).unwrap();
        let bias = biased.then(|| relative(heads.heads, Direction::Both, 64));
        let mut start = 0;
        let mut spans = Vec::new();
        for length in lengths {
            let queries = start..start + length;
            spans.push(Span { queries, first_position: 0, context: length, keys: Keys::Rows { start }, causal });
            start += length;
        }
        let (q, kv) = (heads.query_width(), heads.kv_width());
        let width = q + 2 * kv;
        let data = noise(start * width, 1);
        let attention = Attention { heads, scale: 0.7, soft_cap, bias: bias.as_ref(), window, spans: &spans, pool: &pool, tables: None };
        let tensor = Tensor::from_slice(&data, (start, width), &Device::Cpu).unwrap();
        let found = attention.among_rows(&tensor).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let part = |offset| reference::Part { values: &data, stride: width, offset };
        close(&found, &reference::attend(&attention, part(0), part(q), part(q + kv)));
    }

    #[test]
    fn block_tables_equal_the_reference_and_the_batch_changes_no_bit(
        heads in shape(),
        sequences in prop::collection::vec((1usize..4, 0usize..30), 1..5),
        block_size in 1usize..6,
        biased: bool,
        window in prop::option::of(1usize..30),
        soft_cap in prop::option::of(0.1f32..4.0),
    ) {
        let pool = ComputePool::new(NonZeroUsize::new(2).unwrap()).unwrap();
        let bias = biased.then(|| relative(heads.heads, Direction::Past, 64));
        // Tables run backwards through the slab, so that no two blocks of a sequence are neighbours in order.
        let mut free: Vec<BlockId> = (0..60).map(BlockId::new).collect();
        let tables: Vec<Vec<BlockId>> = sequences
            .iter()
            .map(|(queries, past)| (0..(queries + past).div_ceil(block_size)).map(|_| free.pop().unwrap_or(BlockId::new(0))).collect())
            .collect();
        let mut start = 0;
        let spans: Vec<Span> = sequences
            .iter()
            .zip(&tables)
            .map(|(&(queries, past), blocks)| {
                let span = Span {
                    queries: start..start + queries,
                    first_position: past,
                    context: past + queries,
                    keys: Keys::Blocks { blocks, block_size },
                    causal: true,
                };
                start += queries;
                span
            })
            .collect();
        let (q_width, kv) = (heads.query_width(), heads.kv_width());
        let slots = 60 * block_size;
        let (q, slab) = (noise(start * q_width, 2), noise(slots * 2 * kv, 3));
        let slab_tensor = Tensor::from_slice(&slab, (slots, 2 * kv), &Device::Cpu).unwrap();
        let run = |spans: &[Span<'_>], q: &[f32]| {
            let attention = Attention { heads, scale: 1.0, soft_cap, bias: bias.as_ref(), window, spans, pool: &pool, tables: None };
            let q = Tensor::from_slice(q, (q.len() / q_width, q_width), &Device::Cpu).unwrap();
            attention.over_slab(&q, &slab_tensor).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let found = run(&spans, &q);
        let attention = Attention { heads, scale: 1.0, soft_cap, bias: bias.as_ref(), window, spans: &spans, pool: &pool, tables: None };
        let slab_part = |offset| reference::Part { values: &slab, stride: 2 * kv, offset };
        let q_part = reference::Part { values: &q, stride: q_width, offset: 0 };
        close(&found, &reference::attend(&attention, q_part, slab_part(0), slab_part(kv)));
        for span in &spans {
            let rows = span.queries.start * q_width..span.queries.end * q_width;
            let alone = Span { queries: 0..span.queries.len(), ..span.clone() };
            prop_assert_eq!(&run(&[alone], &q[rows.clone()]), &found[rows]);
        }
    }
}

#[test]
fn written_rows_are_where_the_slots_say() {
    let slab = Tensor::zeros((6, 4), DType::F32, &Device::Cpu).unwrap();
    let source = Tensor::from_slice(&noise(3 * 6, 4), (3, 6), &Device::Cpu).unwrap();
    write_key_values(&slab, &source, &vec![5, 0, 3].into()).unwrap();
    let (slab, source) = (slab.to_vec2::<f32>().unwrap(), source.to_vec2::<f32>().unwrap());
    for (row, slot) in [(0, 5), (1, 0), (2, 3)] {
        assert_eq!(slab[slot], source[row][2..]);
    }
    assert_eq!(slab[1], [0.0; 4]);
}

#[test]
fn a_slab_of_f16_takes_what_is_nearest_and_its_blocks_are_copied() {
    let slab = empty_slab((6, 4), DType::F16, &Device::Cpu).unwrap();
    let source = Tensor::new(&[[9f32, 0.1, -1e6, 2049.0, f32::INFINITY]], &Device::Cpu).unwrap();
    write_key_values(&slab, &source, &vec![2].into()).unwrap();
    let copy = BlockCopy { from: BlockId::new(1), to: BlockId::new(0), rows: 1 };
    copy_blocks(&slab, &[copy], 2).unwrap();
    let rows = slab.to_vec2::<f16>().unwrap();
    assert_eq!(
        rows[2].iter().map(|x| x.to_f32()).collect::<Vec<_>>(),
        [0.099_975_586, -65504.0, 2048.0, 65504.0]
    );
    assert_eq!(rows[0], rows[2]);
    assert_eq!([1, 3, 4, 5].map(|row| rows[row] == [f16::ZERO; 4]), [true; 4]);
    assert!(write_key_values(&slab, &source, &vec![6].into()).is_err());
    assert!(copy_blocks(&slab, &[BlockCopy { from: BlockId::new(3), ..copy }], 2).is_err());
}

#[test]
fn an_empty_slab_starts_with_a_cache_line() {
    for dtype in [DType::F32, DType::F16] {
        let slabs: Vec<Tensor> =
            (1..9).map(|rows| empty_slab((rows * 37, 24), dtype, &Device::Cpu).unwrap()).collect();
        for slab in &slabs {
            let (storage, layout) = slab.storage_and_layout();
            let (start, end) = layout.contiguous_offsets().unwrap();
            let (address, zeros) = match &*storage {
                candle_core::Storage::Cpu(CpuStorage::F32(all)) => {
                    (all[start..].as_ptr().addr(), all[start..end].iter().all(|x| *x == 0.0))
                }
                candle_core::Storage::Cpu(CpuStorage::F16(all)) => {
                    (all[start..].as_ptr().addr(), all[start..end].iter().all(|x| *x == f16::ZERO))
                }
                _ => unreachable!("a slab of the CPU"),
            };
            assert_eq!((address % 64, zeros, end - start), (0, true, slab.elem_count()), "{dtype:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let slab = Tensor::zeros((6, 4), DType::F32, &Device::Cpu).unwrap();
    let source = Tensor::zeros((1, 6), DType::F32, &Device::Cpu).unwrap();
    assert!(write_key_values(&slab, &source, &vec![6].into()).is_err());
    assert!(write_key_values(&slab, &source, &vec![0, 1].into()).is_err());
    assert!(
        write_key_values(&slab, &source.narrow(1, 0, 3).unwrap().contiguous().unwrap(), &vec![0].into())
            .is_err()
    );

    let pool = ComputePool::serial();
    let heads = HeadShape { heads: 1, kv_heads: 1, dim: 2 };
    let run = |span: Span<'_>, bias: Option<&RelativeBias>| {
        let q = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        Attention {
            heads,
            scale: 1.0,
            soft_cap: None,
            bias,
            window: None,
            spans: &[span],
            pool: &pool,
            tables: None,
        }
        .over_slab(&q, &slab)
        .map(|_| ())
    };
    let blocks = [1, 0].map(BlockId::new);
    let keys = Keys::Blocks { blocks: &blocks, block_size: 3 };
    let good = Span { queries: 0..2, first_position: 4, context: 6, keys, causal: true };
    run(good.clone(), None).unwrap();
    assert!(run(Span { queries: 0..1, ..good.clone() }, None).is_err(), "a row is left out");
    assert!(run(Span { queries: 1..2, ..good.clone() }, None).is_err(), "does not start at 0");
    assert!(run(Span { context: 7, ..good.clone() }, None).is_err(), "the table is too short");
    let outside = Keys::Blocks { blocks: &[1, 2].map(BlockId::new), block_size: 3 };
    assert!(run(Span { keys: outside, ..good.clone() }, None).is_err(), "a block beyond the slab");
    assert!(run(good.clone(), Some(&relative(1, Direction::Past, 3))).is_err(), "beyond the bias table");

    let heads = HeadShape { heads: 3, kv_heads: 2, dim: 1 };
    let q = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let spans = [good];
    let uneven = Attention {
        heads,
        scale: 1.0,
        soft_cap: None,
        bias: None,
        window: None,
        spans: &spans,
        pool: &pool,
        tables: None,
    };
    let error = uneven.over_slab(&q, &slab).unwrap_err().to_string();
    assert!(error.contains("3 query heads over 2 heads of keys"), "{error}");
}

#[test]
fn a_row_that_sees_no_key_is_zero() {
    let pool = ComputePool::serial();
    let heads = HeadShape { heads: 4, kv_heads: 2, dim: 20 };
    let (q, kv) = (noise(4 * 80, 2), noise(3 * 80, 3));
    let keys = Keys::Rows { start: 0 };
    // The first has no keys at all; of the second, three rows stand so far behind the keys that their window holds none.
    let spans = [
        Span { queries: 0..1, first_position: 0, context: 0, keys, causal: true },
        Span { queries: 1..4, first_position: 4, context: 3, keys, causal: false },
    ];
    let attention = Attention {
        heads,
        scale: 0.3,
        soft_cap: None,
        bias: None,
        window: Some(2),
        spans: &spans,
        pool: &pool,
        tables: None,
    };
    let key_values = cpu::KeyValues { numbers: Numbers::F32(&kv), stride: 80, keys: 0, values: 40 };
    for &width in simd::widths() {
        let q = cpu::Rows { values: &q, stride: 80, offset: 0 };
        assert_eq!(cpu::attend(&attention, width, (q, key_values)), [0.0; 4 * 80], "{width:?}");
    }
}

/// `T5Attention._relative_position_bucket` of transformers, which tests/golden/make.py has written down.
#[derive(serde::Deserialize)]
struct Buckets {
    bidirectional: bool,
    num_buckets: usize,
    max_distance: usize,
    /// The relative position of the first of `buckets`.
    first: i64,
    buckets: Vec<usize>,
}

#[test]
fn buckets_are_those_of_transformers() {
    let tables: Vec<Buckets> =
        serde_json::from_str(include_str!("../../../tests/golden/buckets.json")).unwrap();
    assert_eq!(tables.len(), 10);
    for Buckets { bidirectional, num_buckets, max_distance, first, buckets } in tables {
        let direction = if bidirectional { Direction::Both } else { Direction::Past };
        let shape = BiasShape { buckets: num_buckets, max_distance, heads: 1, direction };
        for (relative, bucket) in (first..).zip(buckets) {
            assert_eq!(shape.bucket(relative), bucket, "{shape:?} at {relative}");
        }
    }
}
