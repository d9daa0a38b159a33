//! The ops on a real card against the ops on the CPU. Without a card they say that they are skipped; the kernels themselves
//! are then proved by `device_tests.rs`.

use candle_core::{DType, Device, Tensor};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::{
    kernels::{DensePlace, Place, cuda::device::card},
    kv::BlockCopy,
};

fn noise(random: &mut SmallRng, rows: usize, columns: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * columns).map(|_| random.random_range(-1.0f32..1.0)).collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
}

fn largest_difference(found: &Tensor, expected: &Tensor) -> f32 {
    let found = found.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    let difference = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap();
    difference.max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn attention_on_a_card_equals_the_cpu() {
    let Some(card) = card() else { return };
    let random = &mut SmallRng::seed_from_u64(5);
    let there = DensePlace { device: card.clone(), dtype: DType::F32, invariant: false };
    let place = Place::Dense(there);
    let pool = &ComputePool::serial();
    for (dim, kv_heads, group) in [(64, 4, 1), (128, 2, 4), (80, 1, 3), (256, 1, 2)] {
        let heads = HeadShape { heads: kv_heads * group, kv_heads, dim };
        let shape =
            BiasShape { buckets: 32, max_distance: 128, heads: heads.heads, direction: Direction::Past };
        let weight: Vec<f32> = (0..32 * heads.heads).map(|_| random.random_range(-1.0f32..1.0)).collect();
        let bias = RelativeBias::new(shape, &weight, 400).on(&place).unwrap();
        let blocks: Vec<BlockId> = (0..24).rev().map(BlockId::new).collect();
        let keys = |from: usize| Keys::Blocks { blocks: &blocks[from..], block_size: 16 };
        let spans = [
            Span { queries: 0..1, first_position: 200, context: 201, keys: keys(0), causal: true },
            Span { queries: 1..70, first_position: 31, context: 100, keys: keys(13), causal: true },
            Span { queries: 70..73, first_position: 0, context: 60, keys: keys(20), causal: false },
        ];
        for (window, soft_cap) in [(None, None), (Some(50), Some(0.7))] {
            let (bias, spans, tables) = (Some(&bias), &spans[..], None);
            let attention = Attention { heads, scale: 0.2, soft_cap, bias, window, spans, pool, tables };
            let q = noise(random, 73, heads.query_width());
            let slab = noise(random, 24 * 16, 2 * heads.kv_width());
            let expected = attention.over_slab(&q, &slab).unwrap();
            for (dtype, bound) in [(DType::F32, 2e-5), (DType::BF16, 2e-2)] {
                let there = |tensor: &Tensor| tensor.to_device(&card).unwrap().to_dtype(dtype).unwrap();
                let found = attention.over_slab(&there(&q), &there(&slab)).unwrap();
                let difference = largest_difference(&found, &expected);
                assert!(difference <= bound, "{heads:?} {dtype:?}: {difference}");
            }
        }
    }
}

#[test]
fn slabs_on_a_card_equal_those_on_the_cpu() {
    let Some(card) = card() else { return };
    let random = &mut SmallRng::seed_from_u64(6);
    let (slab, source) = (noise(random, 32, 16), noise(random, 3, 24));
    let there = slab.to_device(&card).unwrap();
    let copies = [BlockCopy { from: BlockId::new(1), to: BlockId::new(5), rows: 3 }];
    for (slab, source) in [(&slab, source.clone()), (&there, source.to_device(&card).unwrap())] {
        write_key_values(slab, &source, &vec![7, 0, 30].into()).unwrap();
        copy_blocks(slab, &copies, 4).unwrap();
        assert!(write_key_values(slab, &source, &vec![7, 0, 32].into()).is_err());
    }
    assert_eq!(largest_difference(&there, &slab), 0.0);
}
