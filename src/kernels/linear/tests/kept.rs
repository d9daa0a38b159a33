//! Packed maps as bytes and back.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::*;
use crate::backbones::digest::hex;
use crate::kernels::linear::memory::Room;

/// Bytes that begin `off` behind a multiple of 64.
fn placed(bytes: &[u8], off: usize) -> Bytes {
    let whole = Bytes::from(vec![0u8; bytes.len() + 128]);
    let start = whole.as_ptr().align_offset(64) + off;
    let mut own = Vec::from(whole);
    own[start..start + bytes.len()].copy_from_slice(bytes);
    Bytes::from(own).slice(start..start + bytes.len())
}

pub(super) fn placed_at_a_line(bytes: &[u8]) -> Bytes {
    placed(bytes, 0)
}

#[test]
fn numbers_lie_as_they_were_at_whole_cache_lines() {
    // Small ones stay; others share a stretch; the last is larger than one.
    for &count in unless_miri(&[3u32, 5000, 70_001, 5000, 17 << 20, 5000][..], &[3, 5000, 5000]) {
        let numbers: Vec<u32> = (0..count).map(|at| at.wrapping_mul(0x9e37_79b9)).collect();
        let mut room = Room::zeroed(numbers.len());
        assert!(room.numbers().iter().all(|&number: &u32| number == 0), "{count} zeros");
        room.numbers().copy_from_slice(&numbers);
        let memory = room.done();
        assert!(*memory == *numbers, "{count} numbers");
        if count > 5 {
            assert_eq!(memory.as_ptr().align_offset(64), 0);
        }
    }
}

fn owned(bytes: PackedBytes<&[u8]>) -> PackedBytes<Bytes> {
    let PackedBytes { format, shape, weights, ends } = bytes;
    PackedBytes { format, shape, weights: placed(weights, 0), ends: placed(ends, 3) }
}

fn parts(seed: u64, shape: LinearShape, recipe: Recipe, count: u64) -> Vec<LinearPart> {
    let bias = |seed| Some((0..shape.n).map(|j| noise(seed, j)).collect());
    let part = |seed| LinearPart { shape, weights: weights(seed, shape, recipe), bias: bias(seed) };
    (seed..seed + count).map(part).collect()
}

proptest! {
    #![proptest_config(runs(30))]

    #[test]
    fn a_kept_map_gives_the_same_bits(
        (rows, n, k) in (1usize..unless_miri(12, 4), 1usize..130, 1usize..unless_miri(80, 40)),
        recipe in prop::sample::select(RECIPES.as_slice()),
        (epilogue, count) in prop::sample::select(vec![
            (Epilogue::Plain, 3), (Epilogue::Activated(Activation::Relu), 1), (Epilogue::Gated(Activation::Silu), 2),
        ]),
        seed in any::<u64>(),
    ) {
        let shape = LinearShape { n, k };
        let seed = seed >> 1;
        let packed = Linear::pack(parts(seed, shape, recipe, count), epilogue, pool(2)).unwrap();
        let bytes = packed.bytes();
        prop_assert_eq!(bytes.shape, LinearShape { n: n * count as usize, k });
        let kept = Linear::from_bytes(owned(bytes), epilogue, pool(2)).unwrap();
        prop_assert_eq!(kept.shape(), packed.shape());
        prop_assert_eq!(kept.bytes(), bytes);
        let x = activations(seed, rows, k, &[Rows::Random, Rows::Outlier]);
        prop_assert_eq!(run(&kept, &x), run(&packed, &x));
    }

    #[test]
    fn other_lengths_are_refused(
        recipe in prop::sample::select(RECIPES.as_slice()),
        (n, k) in (1usize..130, 1usize..80),
        (weights, ends) in (0usize..2, 0usize..2),
    ) {
        let map = Linear::concat(parts(5, LinearShape { n, k }, recipe, 1), pool(1)).unwrap();
        let bytes = owned(map.bytes());
        let back = |bytes| Linear::from_bytes(bytes, Epilogue::Plain, pool(1)).is_some();
        prop_assert!(back(bytes.clone()));
        let shorter = |bytes: &Bytes, by: usize| bytes.slice(..bytes.len() - by);
        let short = PackedBytes { weights: shorter(&bytes.weights, weights * 64), ends: shorter(&bytes.ends, ends * 4), ..bytes.clone() };
        prop_assert_eq!(back(short), weights + ends == 0);
        let moved = PackedBytes { weights: placed(&bytes.weights, 32), ..bytes.clone() };
        prop_assert!(!back(moved), "not at a multiple of 64");
        for shape in [LinearShape { n: n + 64, k }, LinearShape { n, k: k + 32 }, LinearShape { n: 0, k }, LinearShape { n: usize::MAX, k }] {
            let other = PackedBytes { shape, ..bytes.clone() };
            prop_assert!(!back(other), "{shape:?}");
        }
    }
}

/// Files of packed weights outlive the program that has written them.
#[cfg_attr(miri, ignore = "takes minutes under Miri")]
#[test]
fn the_order_of_bytes_moves_only_with_the_layouts_number() {
    let mut hash = Sha256::new();
    for recipe in RECIPES {
        for (epilogue, count) in [(Epilogue::Plain, 1), (Epilogue::Gated(Activation::Silu), 2)] {
            let shape = LinearShape { n: 70, k: 45 };
            let map = Linear::pack(parts(7, shape, recipe, count), epilogue, pool(1)).unwrap();
            let PackedBytes { format, weights, ends, .. } = map.bytes();
            hash.update(serde_json::to_vec(&format).unwrap());
            hash.update(weights);
            hash.update(ends);
        }
    }
    let expected = (2, "4b4f986feccbb062");
    assert_eq!(
        (LAYOUT, &hex(&hash.finalize())[..16]),
        expected,
        "the order has changed: give LAYOUT a new number"
    );
}
