//! `best.cu`, run on the host: the sampler's choices.

use half::bf16;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    plan::{Arguments, launch},
    tests::{rows, sampled},
    *,
};
use crate::kernels::cuda::{
    Format,
    shim::{HostDevice, Run, available},
};

/// Runs the kernel on rows that start `ahead` numbers behind the start of their memory.
fn run(values: &[f32], ahead: usize, (stride, vocab): (usize, usize), format: Format) -> Run {
    let mut device = HostDevice::default();
    let padded: Vec<f32> = std::iter::repeat_n(f32::NAN, ahead).chain(values.iter().copied()).collect();
    let base = match format {
        Format::F32 => device.upload(&padded),
        Format::Bf16 => {
            device.upload(&padded.iter().map(|&x| bf16::from_f32(x).to_bits()).collect::<Vec<u16>>())
        }
    };
    let count = values.len() / stride;
    let out = device.output::<u32>(count);
    let logits = base.offset(ahead * format.bytes());
    let arguments = Arguments::new((logits, format), out, stride, vocab);
    device.launch(launch(count, format), arguments).unwrap()
}

#[test]
fn choices_are_the_samplers() {
    if !available() {
        return;
    }
    for seed in 0..40 {
        let random = &mut SmallRng::seed_from_u64(seed);
        let format = if seed % 2 == 0 { Format::F32 } else { Format::Bf16 };
        // Fewer columns than threads, a few rounds of the block, and lengths around whole fours.
        let vocab = match seed % 3 {
            0 => random.random_range(0..10),
            1 => random.random_range(10..600),
            _ => random.random_range(4_000..10_000),
        };
        let (count, stride) = (random.random_range(1..5), vocab + random.random_range(1..7));
        let values = rows(random, count, stride, vocab);
        let ahead = random.random_range(0..5);
        let found = run(&values, ahead, (stride, vocab), format).u32(0);
        let expected: Vec<u32> =
            sampled(&values, stride, vocab).into_iter().map(|token| token.unwrap_or(NO_CHOICE)).collect();
        assert_eq!(found, expected, "seed {seed}: {count} rows of {vocab} of {stride} {format:?}");
    }
}

#[test]
fn every_place_of_a_row_is_seen() {
    if !available() {
        return;
    }
    let (vocab, stride) = (43, 45);
    let mut values = vec![-7.0; vocab * stride];
    for place in 0..vocab {
        values[place * stride + place] = -1.5;
    }
    let found = run(&values, 1, (stride, vocab), Format::F32).u32(0);
    assert_eq!(found, (0..vocab as u32).collect::<Vec<_>>());
}

#[test]
fn a_logit_is_read_once() {
    if !available() {
        return;
    }
    for (format, stride, vocab) in [(Format::F32, 5_001, 4_999), (Format::Bf16, 5_001, 5_000)] {
        let found = run(&vec![0.5; 3 * stride], 2, (stride, vocab), format);
        let least = (3 * vocab * format.bytes()) as u64;
        assert_eq!((found.loaded, found.distinct_loaded, found.stored), (least, least, 12));
    }
}
