use std::io::Write as _;
use std::num::NonZeroUsize;

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::kernels::miri::{runs, unless_miri};

mod activations;
mod edges;
mod extremes;
mod kept;
mod packing;

/// How a row of activations looks.
#[derive(Clone, Copy, Debug)]
enum Rows {
    Random,
    Zeros,
    Outlier,
    Denormal,
    Equal,
    Huge,
}

/// A pseudo-random number in -1..1 that depends on all of its bits (SplitMix64).
fn noise(seed: u64, index: usize) -> f32 {
    let mut z = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

fn activations(seed: u64, rows: usize, k: usize, kinds: &[Rows]) -> Vec<f32> {
    let cell = |row: usize, column: usize| {
        let value = noise(seed, row * k + column);
        match kinds[row % kinds.len()] {
            Rows::Random => value,
            Rows::Zeros => 0.0,
            Rows::Outlier if column == row % k => 3.0e4,
            Rows::Outlier => value * 1e-3,
            Rows::Denormal => value * 1e-39,
            Rows::Equal => -1.5,
            Rows::Huge => value * 1e30,
        }
    };
    (0..rows * k).map(|index| cell(index / k, index % k)).collect()
}

/// How weights are held.
#[derive(Clone, Copy, Debug)]
enum Recipe {
    F32,
    F16,
    Bf16,
    I8(ActivationBits),
    Blocks(ActivationBits),
    Nibbles(ActivationBits),
}

fn weights(seed: u64, shape: LinearShape, recipe: Recipe) -> LinearWeights {
    let values: Vec<f32> = (0..shape.n * shape.k).map(|index| noise(!seed, index) * 0.1).collect();
    match recipe {
        Recipe::F32 => LinearWeights::F32 { values },
        Recipe::F16 => LinearWeights::F16 { values: short(seed, &values, f16::from_f32, f16::from_bits) },
        Recipe::Bf16 => LinearWeights::Bf16 { values: short(seed, &values, bf16::from_f32, bf16::from_bits) },
        Recipe::I8(bits) => LinearWeights::quantise(&values, shape, bits).unwrap(),
        Recipe::Blocks(bits) => LinearWeights::quantise_blocks(&values, shape, bits).unwrap(),
        Recipe::Nibbles(bits) => nibbles(seed, &values, shape, bits),
    }
}

/// The values rounded, and some numbers below the least normal one among them.
fn short<F>(seed: u64, values: &[f32], round: fn(f32) -> F, of_bits: fn(u16) -> F) -> Vec<F> {
    let denormal = |index: usize| (index as u64 ^ seed).is_multiple_of(5);
    let short = |(index, &value): (usize, &f32)| match denormal(index) {
        true => of_bits(value.to_bits() as u16 & 0x807f),
        false => round(value),
    };
    values.iter().enumerate().map(short).collect()
}

/// Levels by each value, with a scale and an offset for every block.
fn nibbles(seed: u64, values: &[f32], shape: LinearShape, activations: ActivationBits) -> LinearWeights {
    let blocks = shape.n * shape.k.div_ceil(32);
    let numbers = |seed, size| (0..blocks).map(|block| f16::from_f32(noise(seed, block) * size)).collect();
    LinearWeights::Nibbles {
        levels: values.iter().map(|value| ((value * 10.0 + 1.0) * 8.0) as u8 & 15).collect(),
        scales: numbers(seed ^ 2, 0.02),
        offsets: numbers(seed ^ 3, 0.2),
        activations,
    }
}

fn pool(threads: usize) -> ComputePool {
    ComputePool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

fn run(linear: &Linear, x: &[f32]) -> Vec<u32> {
    let rows = x.len() / linear.shape().k;
    let out = linear.forward_rows(x, rows).unwrap();
    assert_eq!(out.len(), rows * linear.shape().n);
    bits(&out)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

const RECIPES: [Recipe; 9] = [
    Recipe::F32,
    Recipe::F16,
    Recipe::Bf16,
    Recipe::I8(ActivationBits::Eight),
    Recipe::I8(ActivationBits::Fifteen),
    Recipe::Blocks(ActivationBits::Eight),
    Recipe::Blocks(ActivationBits::Fifteen),
    Recipe::Nibbles(ActivationBits::Eight),
    Recipe::Nibbles(ActivationBits::Fifteen),
];

/// Every instruction set and thread count gives the reference's bits.
fn check_against_reference(x: &[f32], shape: LinearShape, weights: LinearWeights, bias: Option<Vec<f32>>) {
    let expected = bits(&reference::forward(x, shape, &weights, bias.as_deref()));
    for threads in [1, 2] {
        let linear = Linear::new(shape, weights.clone(), bias.clone(), pool(threads)).unwrap();
        for isa in available() {
            let got = run(&linear.clone().with_isa(isa).unwrap(), x);
            if let Some(at) = got.iter().zip(&expected).position(|(got, expected)| got != expected) {
                let (got, expected) = (f32::from_bits(got[at]), f32::from_bits(expected[at]));
                panic!(
                    "{isa:?}, {threads} threads, {shape:?}: output {at} is {got:e}, expected {expected:e}"
                );
            }
        }
    }
}

fn kinds() -> impl Strategy<Value = Rows> {
    prop_oneof![
        4 => Just(Rows::Random),
        1 => Just(Rows::Zeros),
        1 => Just(Rows::Outlier),
        1 => Just(Rows::Denormal),
        1 => Just(Rows::Equal),
        1 => Just(Rows::Huge),
    ]
}

proptest! {
    #![proptest_config(runs(40))]

    #[test]
    fn every_kernel_gives_the_reference_bits(
        (rows, n, k) in (1usize..unless_miri(70, 4), 1usize..unless_miri(130, 80), 1usize..unless_miri(300, 40)),
        kinds in prop::collection::vec(kinds(), 1..5),
        recipe in prop::sample::select(RECIPES.as_slice()),
        with_bias in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let shape = LinearShape { n, k };
        let x = activations(seed, rows, k, &kinds);
        let bias = with_bias.then(|| (0..n).map(|j| noise(seed ^ 1, j)).collect());
        check_against_reference(&x, shape, weights(seed, shape, recipe), bias);
    }

    #[test]
    fn a_row_does_not_see_its_neighbours(
        (rows, n, k) in (2usize..unless_miri(70, 4), 1usize..unless_miri(130, 80), 1usize..unless_miri(300, 40)),
        recipe in prop::sample::select(RECIPES.as_slice()),
        seed in any::<u64>(),
    ) {
        let shape = LinearShape { n, k };
        let x = activations(seed, rows, k, &[Rows::Random, Rows::Outlier]);
        let linear = Linear::new(shape, weights(seed, shape, recipe), None, pool(2)).unwrap();
        let together = run(&linear, &x);
        for (row, x) in x.chunks_exact(k).enumerate() {
            prop_assert_eq!(&run(&linear, x), &together[row * n..(row + 1) * n]);
        }
    }
}

/// Each way of holding weights once, from packing to bytes and back: under Miri properties see few of them.
#[test]
fn every_recipe_packs_computes_and_is_kept() {
    let shape = LinearShape { n: 65, k: 35 };
    let x = activations(4, 2, 35, &[Rows::Random, Rows::Outlier]);
    for recipe in RECIPES {
        let weights = weights(4, shape, recipe);
        let expected = bits(&reference::forward(&x, shape, &weights, None));
        let linear = Linear::new(shape, weights, None, pool(1)).unwrap();
        assert_eq!(run(&linear, &x), expected, "{recipe:?}");
        let PackedBytes { format, shape: whole, weights, ends } = linear.bytes();
        let [weights, ends] = [weights, ends].map(kept::placed_at_a_line);
        let bytes = PackedBytes { format, shape: whole, weights, ends };
        let kept = Linear::from_bytes(bytes, Epilogue::Plain, pool(1)).unwrap();
        assert_eq!(run(&kept, &x), expected, "{recipe:?}");
    }
}

#[test]
fn instruction_sets_that_go_untested_here_are_told() {
    let shape = LinearShape { n: 1, k: 1 };
    let linear = Linear::new(shape, weights(0, shape, Recipe::F32), None, pool(1)).unwrap();
    assert_eq!(linear.isa(), available().last().unwrap());
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        assert_eq!(linear.clone().with_isa(isa).unwrap_err(), LinearError::Unavailable(isa));
        // Not by a macro, whose output is only shown of tests that fail.
        writeln!(std::io::stderr(), "SKIPPED, not on this machine: linear kernels for {}", isa.name())
            .unwrap();
    }
}

#[cfg_attr(miri, ignore = "takes minutes under Miri")]
#[test]
fn large_shapes_cut_into_many_tiles_agree() {
    for (rows, n, k) in [(400, 300, 64), (1, 3000, 260), (13, 1100, 131)] {
        for recipe in RECIPES {
            let shape = LinearShape { n, k };
            check_against_reference(
                &activations(7, rows, k, &[Rows::Random]),
                shape,
                weights(7, shape, recipe),
                None,
            );
        }
    }
}

/// The largest distance of a map's outputs from those of its widened weights in f32.
fn error(weights: &LinearWeights, shape: LinearShape, x: &[f32]) -> f32 {
    let exact = LinearWeights::F32 { values: weights.widen(shape.k) };
    let exact = reference::forward(x, shape, &exact, None);
    let got = reference::forward(x, shape, weights, None);
    got.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[cfg_attr(miri, ignore = "takes minutes under Miri")]
#[test]
fn fifteen_bits_come_close_to_f32_and_eight_less_so() {
    let shape = LinearShape { n: 20, k: 256 };
    let x = activations(3, 8, 256, &[Rows::Random]);
    let recipes: [fn(ActivationBits) -> Recipe; 3] = [Recipe::I8, Recipe::Blocks, Recipe::Nibbles];
    for recipe in recipes {
        let [eight, fine] = [ActivationBits::Eight, ActivationBits::Fifteen]
            .map(|bits| error(&weights(3, shape, recipe(bits)), shape, &x));
        assert!(eight < 0.03 && fine < 0.0003, "{:?}: {eight} {fine}", recipe(ActivationBits::Eight));
    }
}

#[cfg_attr(miri, ignore = "takes minutes under Miri")]
#[test]
fn an_outlier_costs_only_its_block_precision() {
    // As the inputs of a gated MLP's last map look: one of a row is a thousand times the others.
    let shape = LinearShape { n: 20, k: 512 };
    let mut x = activations(5, 1, 512, &[Rows::Random]);
    x[300] = 1000.0;
    let by_row = error(&weights(5, shape, Recipe::I8(ActivationBits::Eight)), shape, &x);
    let by_block = error(&weights(5, shape, Recipe::Blocks(ActivationBits::Eight)), shape, &x);
    assert!(by_block < by_row / 2.0, "{by_block} {by_row}");
}

#[test]
fn blocks_of_a_file_come_back_unchanged() {
    // As GGML's Q8_0 makes them: a scale of 16 bits, and in every block a value of 127 (or a block of zeros).
    let shape = LinearShape { n: 5, k: 96 };
    let scales: Vec<f16> = (0..15).map(|block| f16::from_f32(0.013 * block as f32)).collect();
    let value = |index: usize| if index.is_multiple_of(32) { 127 } else { (noise(9, index) * 127.0) as i8 };
    let values: Vec<i8> = (0..480).map(|index| if index < 32 { 0 } else { value(index) }).collect();
    let widened: Vec<f32> =
        values.iter().enumerate().map(|(index, &v)| f32::from(v) * scales[index / 32].to_f32()).collect();
    let activations = ActivationBits::Eight;
    let found = LinearWeights::quantise_blocks(&widened, shape, activations).unwrap();
    assert_eq!(found, LinearWeights::Blocks { values, scales, activations });
}

#[test]
fn blocks_too_large_for_their_scale_are_refused() {
    let mut values = vec![1.0; 64];
    values[40] = 1e8;
    let shape = LinearShape { n: 1, k: 64 };
    let error = LinearWeights::quantise_blocks(&values, shape, ActivationBits::Eight).unwrap_err();
    assert_eq!(error, LinearError::NotFinite { what: "scales", index: 1, value: f32::INFINITY });
}

#[test]
fn quantised_weights_are_within_half_a_step() {
    let shape = LinearShape { n: 3, k: 4 };
    let values = [0.0, 0.0, 0.0, 0.0, 1.0, -2.0, 0.5, 1.999, 1e-44, -1e-44, 0.0, 3e-45];
    let LinearWeights::I8 { values: q, scales, .. } =
        LinearWeights::quantise(&values, shape, ActivationBits::Eight).unwrap()
    else {
        unreachable!("asked for int8");
    };
    assert_eq!(&q[..8], &[0, 0, 0, 0, 64, -127, 32, 127]);
    assert_eq!(scales[0], 0.0);
    for (index, value) in values.iter().enumerate() {
        assert!(
            (f32::from(q[index]) * scales[index / 4] - value).abs() <= scales[index / 4] * 0.5001 + 1e-44
        );
    }
}

#[cfg_attr(miri, ignore = "takes minutes under Miri")]
#[test]
fn a_row_with_a_nan_shows_it_and_spares_the_others() {
    // In one of three blocks of the second row, the last of which is a tail; 3 rows are few, 20 many.
    let shape = LinearShape { n: 70, k: 73 };
    for (recipe, rows) in RECIPES.into_iter().skip(3).flat_map(|recipe| [(recipe, 3), (recipe, 20)]) {
        let clean = activations(1, rows, 73, &[Rows::Random]);
        for (bad, at) in [(f32::NAN, 4), (f32::INFINITY, 40), (f32::NEG_INFINITY, 72), (f32::NAN, 72)] {
            let mut x = clean.clone();
            x[73 + at] = bad;
            for isa in available() {
                let linear = Linear::new(shape, weights(1, shape, recipe), None, pool(1)).unwrap();
                let linear = linear.with_isa(isa).unwrap();
                let (got, expected) = (run(&linear, &x), run(&linear, &clean));
                assert!(got[70..140].iter().all(|&bits| f32::from_bits(bits).is_nan()));
                assert_eq!(got[..70], expected[..70]);
                assert_eq!(got[140..], expected[140..]);
            }
        }
    }
}

#[cfg_attr(miri, ignore = "takes minutes under Miri")]
#[test]
fn concatenated_parts_give_each_parts_bits() {
    let shapes = [5, 64, 3].map(|n| LinearShape { n, k: 33 });
    let x = activations(2, 7, 33, &[Rows::Random]);
    for recipe in RECIPES {
        let part = |index: usize| LinearPart {
            shape: shapes[index],
            weights: weights(index as u64, shapes[index], recipe),
            bias: (index == 1).then(|| vec![0.25; 64]),
        };
        let whole = run(&Linear::concat((0..3).map(part).collect(), pool(2)).unwrap(), &x);
        let alone = (0..3).map(|index| run(&Linear::concat(vec![part(index)], pool(1)).unwrap(), &x));
        for (row, whole) in whole.chunks_exact(72).enumerate() {
            let alone = alone
                .clone()
                .zip(shapes)
                .flat_map(|(out, shape)| out[row * shape.n..(row + 1) * shape.n].to_vec());
            assert_eq!(whole, alone.collect::<Vec<_>>());
        }
    }
}
