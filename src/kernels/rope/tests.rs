use std::num::NonZeroUsize;

use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::kernels::miri::runs;

const REACH: usize = 300;

fn noise(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

fn frequencies(dim: usize) -> Vec<f32> {
    (0..dim / 2).map(|i| 10_000f32.powf(-((2 * i) as f32) / dim as f32)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(runs(64))]

    #[test]
    fn heads_equal_the_reference_and_neither_neighbours_nor_threads_change_a_bit(
        (kv_heads, group, half) in (1usize..4, 1usize..4, prop::sample::select(vec![1usize, 4, 10, 32, 64])),
        positions in prop::collection::vec(0u32..REACH as u32, 1..40),
        normed: bool,
        threads in 1usize..3,
    ) {
        let pool = ComputePool::new(NonZeroUsize::new(threads).unwrap()).unwrap();
        let heads = HeadShape { heads: kv_heads * group, kv_heads, dim: 2 * half };
        let rope = RopeTable::new(&frequencies(heads.dim), REACH);
        let (query, key) = (noise(heads.dim, 1), noise(heads.dim, 2));
        let norm = |weight: &[f32]| Norm::rms(weight.to_vec(), 1e-6, pool.clone()).unwrap();
        let norms = normed.then(|| HeadNorms { query: norm(&query), key: norm(&key) });
        let run = |rows: &[f32], positions: &[u32], pool: &ComputePool| {
            let width = rows.len() / positions.len();
            let positions = &positions.to_vec().into();
            let op = PrepareHeads { heads, norms: norms.as_ref(), rope: &rope, positions, pool };
            let qkv = Tensor::from_slice(rows, (rows.len() / width, width), &Device::Cpu).unwrap();
            op.forward(qkv).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let width = heads.query_width() + 2 * heads.kv_width();
        let rows = noise(positions.len() * width, 3);
        let found = run(&rows, &positions, &pool);
        let weights = reference::Weights { query: &query, key: &key, eps: 1e-6 };
        let weights = normed.then_some(&weights);
        for ((row, found), &position) in
            rows.chunks_exact(width).zip(found.chunks_exact(width)).zip(&positions)
        {
            let expected = reference::prepare(row, heads, weights, &frequencies(heads.dim), position);
            for (found, expected) in found.iter().zip(expected) {
                prop_assert!((f64::from(*found) - expected).abs() < 1e-4, "{} {}", found, expected);
            }
            prop_assert_eq!(bits(&run(row, &[position], &ComputePool::serial())), bits(found));
            prop_assert_eq!(&found[width - heads.kv_width()..], &row[width - heads.kv_width()..]);
        }
    }
}

#[test]
fn every_width_gives_the_same_bits() {
    for half in [1, 7, 16, 33] {
        let table = RopeTable::new(&frequencies(2 * half), 12);
        let (cos, sin) = table.turn(11);
        let (mut plain, mut wide) = (noise(6 * half, 4), noise(6 * half, 4));
        turn(&mut plain, cos, sin);
        let part = &mut wide[..];
        simd::widest!(turn(part: &mut [f32], cos: &[f32], sin: &[f32]));
        assert_eq!(bits(&plain), bits(&wide));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let pool = ComputePool::serial();
    let heads = HeadShape { heads: 2, kv_heads: 1, dim: 4 };
    let rope = RopeTable::new(&frequencies(4), 10);
    assert_eq!(rope.reach(), 10);
    let [near, distant] = [vec![9, 0], vec![0, 10]].map(RowIndices::from);
    let good = PrepareHeads { heads, norms: None, rope: &rope, positions: &near, pool: &pool };
    assert_eq!(good.check(2, 16), Ok(()));
    assert_eq!(good.check(1, 16), Err(RopeError::Rows { rows: 1, positions: 2 }));
    assert!(matches!(good.check(2, 15), Err(RopeError::Columns { what: "a row", expected: 16, found: 15 })));
    let far = PrepareHeads { positions: &distant, ..good };
    assert_eq!(far.check(2, 16), Err(RopeError::Position { row: 1, position: 10, reach: 10 }));
    let narrow = RopeTable::new(&frequencies(2), 10);
    assert!(PrepareHeads { rope: &narrow, ..good }.check(2, 16).is_err());
    let norm = Norm::rms(vec![1.0; 3], 1e-6, ComputePool::serial()).unwrap();
    let norms = HeadNorms { query: norm.clone(), key: norm };
    assert!(PrepareHeads { norms: Some(&norms), ..good }.check(2, 16).is_err());
}
