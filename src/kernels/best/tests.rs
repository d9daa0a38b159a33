//! The op on the CPU against the sampler, whose choice it has to be.

use candle_core::{DType, Device};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::{
    domain::SamplingParams,
    kernels::miri::unless_miri,
    sampling::{Mask, Sampler, Scratch},
};

/// Rows `(rows, stride)` with many ties; in some of them NaN, infinities or nothing that is allowed. Padding is of any kind.
pub(super) fn rows(random: &mut SmallRng, rows: usize, stride: usize, vocab: usize) -> Vec<f32> {
    const ODD: [f32; 5] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0];
    let mut values = Vec::with_capacity(rows * stride);
    for _ in 0..rows {
        let (kind, levels) = (random.random_range(0..4), random.random_range(1..20));
        let start = values.len();
        // Halves: bf16 holds them exactly.
        values.extend((0..vocab).map(|_| match kind {
            0 => f32::NEG_INFINITY,
            _ => (random.random_range(0..levels) - 12) as f32 / 2.0,
        }));
        for _ in 0..if vocab == 0 { 0 } else { random.random_range(0..3) } {
            let odd = if kind < 3 { &ODD[2..] } else { &ODD[..] };
            values[start + random.random_range(0..vocab)] = odd[random.random_range(0..odd.len())];
        }
        values.extend((vocab..stride).map(|at| if at % 3 == 0 { 99.0 } else { ODD[at % 2] }));
    }
    values
}

/// What the sampler chooses from the first `vocab` columns of each row.
pub(super) fn sampled(values: &[f32], stride: usize, vocab: usize) -> Vec<Option<u32>> {
    let mut scratch = Scratch::default();
    let choices = values.chunks(stride).map(|row| {
        let mut sampler = Sampler::new(&SamplingParams::greedy(), 0, &[], vocab);
        sampler.sample(&mut row.to_vec(), Mask::default(), &mut scratch).ok().map(|chosen| chosen.token)
    });
    choices.collect()
}

#[test]
fn choices_are_the_samplers() {
    for seed in 0..unless_miri(300, 20) {
        let random = &mut SmallRng::seed_from_u64(seed);
        let (count, vocab) = (random.random_range(0..9), random.random_range(0..70));
        let stride = vocab + random.random_range(1..5);
        let values = rows(random, count, stride, vocab);
        let expected = sampled(&values, stride, vocab);
        let logits = Tensor::from_vec(values, (count, stride), &Device::Cpu).unwrap();
        assert_eq!(best_tokens(&logits, vocab).unwrap(), expected, "seed {seed}");
    }
}

#[test]
fn rows_of_a_larger_matrix_are_searched_in_place() {
    let values = vec![0.0f32, 1.0, 5.0, 2.0, 1.0, 5.0, 3.0, 3.0, 5.0];
    let logits = Tensor::from_vec(values, (3, 3), &Device::Cpu).unwrap();
    assert_eq!(best_tokens(&logits.narrow(0, 1, 2).unwrap(), 2).unwrap(), [Some(0), Some(0)]);
    assert!(best_tokens(&logits.narrow(1, 0, 2).unwrap(), 2).is_err(), "rows that are not contiguous");
}

#[test]
fn what_does_not_fit_is_an_error_that_says_why() {
    let logits = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    for (logits, expected) in [
        (logits(&[2, 3], DType::F32), "a row of 3 logits for a vocabulary of 4 tokens"),
        (logits(&[8], DType::F32), "the shape [8]"),
        (logits(&[2, 4], DType::BF16), "BF16"),
    ] {
        let error = best_tokens(&logits, 4).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
