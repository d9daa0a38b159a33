//! Models of plain matrices, as a GPU computes them, against the packed ones of the CPU: here by candle's CPU products, and on
//! the first CUDA device where there is one.

use candle_core::{DType, Device};
use dept::{
    domain::{RawSampling, SamplingParams},
    kernels::{DensePlace, Place},
    layers::Recipe,
    sampling::Sampled,
};

use crate::support::{
    Job, Memory, causal::load_decoder_at, generate, generate_causal, generate_causal_once, golden, lease,
    load_t5, load_t5_at,
};

/// Matrices in f32 on the CPU, and on a card.
fn places() -> Vec<Place> {
    let mut places = Vec::new();
    for invariant in [false, true] {
        places.push(Place::Dense(DensePlace { device: Device::Cpu, dtype: DType::F32, invariant }));
        match Place::card(0, DType::F32, invariant) {
            Ok(card) => places.push(card),
            Err(why) => eprintln!("SKIPPED on a GPU: {why}"),
        }
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

/// The same, of whose tokens nothing but the best is wanted: a device chooses those itself.
fn greedy(jobs: &[Job]) -> Vec<Job> {
    let sampling = SamplingParams::new(RawSampling::default()).unwrap();
    jobs.iter().map(|job| Job { sampling: sampling.clone(), ..job.clone() }).collect()
}

fn tokens(sampled: &[Vec<Sampled>]) -> Vec<Vec<u32>> {
    sampled.iter().map(|job| job.iter().map(|one| one.token).collect()).collect()
}

fn are_close(found: &[Vec<Sampled>], expected: &[Vec<Sampled>], what: &str) {
    assert_eq!(tokens(found), tokens(expected), "{what}");
    for (job, (found, expected)) in found.iter().zip(expected).enumerate() {
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
            let model = || load_t5_at(place.clone(), &golden(family), Recipe::F32, 2);
            are_close(&generate(model(), &jobs, Memory::default()).0, &expected, &what);
            let chosen = generate(model(), &greedy(&jobs), Memory::default()).0;
            assert_eq!(tokens(&chosen), tokens(&expected), "{what}");
        }
    }
}

#[test]
fn a_decoder_of_matrices_says_what_the_packed_one_says() {
    for family in ["gpt2", "llama", "qwen3", "gemma2", "gemma3"] {
        let jobs = jobs(family, &["dept", "pt"]);
        let packed = load_decoder_at(Place::Cpu, &golden(family));
        let (expected, _) = generate_causal(packed, &jobs, Memory::default());
        for place in places() {
            let what = format!("{family} {place:?}");
            let model = || load_decoder_at(place.clone(), &golden(family));
            are_close(&generate_causal(model(), &jobs, Memory::default()).0, &expected, &what);
            // Among them one that wants more of its logits.
            let mixed = [greedy(&jobs[..2]), jobs[2..].to_vec()].concat();
            let chosen = generate_causal(model(), &mixed, Memory::default()).0;
            assert_eq!(tokens(&chosen), tokens(&expected), "{what}");
        }
    }
}

/// Alone, among others and in pieces of another size: the same bits.
#[test]
fn invariant_matrices_give_a_request_its_bits_in_any_company() {
    for place in places().into_iter().filter(Place::invariant) {
        for family in ["gpt2", "llama"] {
            let jobs = jobs(family, &["dept", "pt"]);
            let model = || load_decoder_at(place.clone(), &golden(family));
            let (crowd, _) = generate_causal(model(), &jobs, Memory::default());
            for (job, crowd) in jobs.iter().zip(&crowd) {
                let memory = Memory { max_batch_tokens: 5, ..Memory::default() };
                let (alone, _) = generate_causal(model(), std::slice::from_ref(job), memory);
                assert_eq!(&alone[0], crowd, "{family} {place:?}");
            }
        }
    }
}

/// A device that holds two or three adapters of twelve that come one behind the other: what has not been copied yet, or finds no room, is
/// copied for its step.
#[test]
fn more_adapters_than_a_device_holds_are_served_all_the_same() {
    let jobs = || -> Vec<Job> {
        let names = ["dept", "pt", "lowrank"].into_iter().cycle().take(12);
        let lease = |name| lease(&golden(&format!("adapters/llama/{name}")), None);
        let prompt = |length: u32| (0..length).map(|at| 3 + (at * 5 + length) % 40).collect();
        names.zip(4..).map(|(name, length)| Job::new(prompt(length), Some(lease(name)), 6)).collect()
    };
    let (expected, _) =
        generate_causal(load_decoder_at(Place::Cpu, &golden("llama")), &jobs(), Memory::default());
    for place in places() {
        let memory = Memory { adapter_bytes: 4 << 10, ..Memory::default() };
        let (found, _, held) =
            generate_causal_once(load_decoder_at(place.clone(), &golden("llama")), jobs(), memory);
        are_close(&found, &expected, &format!("{place:?}"));
        assert!(held.bytes <= 4 << 10, "{held:?}");
        eprintln!("{place:?}: {held:?}");
    }
}
