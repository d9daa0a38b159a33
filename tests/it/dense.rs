//! Models of plain matrices, as a GPU computes them, against the packed ones of the CPU: here by candle's CPU products, and on
//! the first CUDA device where there is one.

use candle_core::{DType, Device};
use dept::{kernels::Place, layers::Recipe, sampling::Sampled};

use crate::support::{
    Job, Memory, causal::load_decoder_at, generate, generate_causal, golden, lease, load_t5, load_t5_at,
};

/// Matrices in f32 on the CPU, and on a card.
fn places() -> Vec<Place> {
    let mut places = vec![Place::Dense { device: Device::Cpu, dtype: DType::F32 }];
    match Place::card(0, DType::F32) {
        Ok(card) => places.push(card),
        Err(why) => eprintln!("SKIPPED on a GPU: {why}"),
    }
    places
}

/// Prompts of several lengths, with each adapter of a family and without.
fn jobs(family: &str, adapters: &[&str]) -> Vec<Job> {
    let prompt =
        |length: u32| (0..length).map(|at| 3 + (at * 7 + length) % 40).chain([1]).collect::<Vec<_>>();
    let folder = |name: &&str| lease(&golden(&format!("adapters/{family}/{name}")), None);
    let leases = adapters.iter().map(folder).map(Some).chain([None]);
    leases.zip([9, 4, 12]).map(|(lease, length)| Job::new(prompt(length), lease, 12)).collect()
}

fn are_close(found: &[Vec<Sampled>], expected: &[Vec<Sampled>], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (job, (found, expected)) in found.iter().zip(expected).enumerate() {
        let tokens = |sampled: &[Sampled]| sampled.iter().map(|one| one.token).collect::<Vec<_>>();
        assert_eq!(tokens(found), tokens(expected), "{what} job {job}");
        for (found, expected) in found.iter().zip(expected) {
            let apart = (found.logprob.unwrap() - expected.logprob.unwrap()).abs();
            assert!(apart < 1e-3, "{what} job {job}: {apart}");
        }
    }
}

#[test]
fn a_t5_of_matrices_says_what_the_packed_one_says() {
    for family in ["t5-v1_0", "t5-v1_1"] {
        let jobs = jobs(family, &["dept", "pt"]);
        let (expected, _) = generate(load_t5(&golden(family), Recipe::F32, 2), &jobs, Memory::default());
        for place in places() {
            let what = format!("{family} {place:?}");
            let model = load_t5_at(place, &golden(family), Recipe::F32, 2);
            are_close(&generate(model, &jobs, Memory::default()).0, &expected, &what);
        }
    }
}

#[test]
fn a_decoder_of_matrices_says_what_the_packed_one_says() {
    for family in ["gpt2", "llama", "qwen3", "gemma3"] {
        let jobs = jobs(family, &["dept", "pt"]);
        let packed = load_decoder_at(Place::Cpu, &golden(family));
        let (expected, _) = generate_causal(packed, &jobs, Memory::default());
        for place in places() {
            let what = format!("{family} {place:?}");
            let model = load_decoder_at(place, &golden(family));
            are_close(&generate_causal(model, &jobs, Memory::default()).0, &expected, &what);
        }
    }
}
