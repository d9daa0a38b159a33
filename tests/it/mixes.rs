//! The guarantee: a request gets the same bytes alone, in any mix, at any place in the batch, after a preemption, and
//! whether its rows were computed or found.

use std::path::Path;

use dept::{adapter::AdapterLease, domain::Scoring, layers::Recipe, runner::KvDtype, sampling::Sampled};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::support::{Job, Memory, causal::load_decoder, generate, generate_causal, golden, lease, load_t5};

/// The adapters of a golden model, and none.
fn adapters(model: &str) -> Vec<Option<AdapterLease>> {
    let folder = golden(&format!("adapters/{model}"));
    let mut folders: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let task = |path: &Path| path.ends_with("mpt").then_some(0);
    let leases = folders.iter().map(|path| Some(lease(path, task(path))));
    leases.chain([None]).collect()
}

/// Jobs whose prompts often begin alike or are the same.
fn mix(random: &mut SmallRng, adapters: &[Option<AdapterLease>], count: usize) -> Vec<Job> {
    let job = |random: &mut SmallRng| {
        let adapter = adapters[random.random_range(0..adapters.len())].clone();
        let longest = adapter.as_ref().and_then(|lease| lease.weights().max_length()).unwrap_or(30).min(30);
        let (length, common) = (random.random_range(1..=longest as u32), random.random_range(0..30));
        let variant = random.random_range(0..3);
        let prompt = (0..length).map(|at| 5 + if at < common { at } else { at + 7 * variant }).collect();
        let max_tokens = random.random_range(1..12);
        let given: Vec<u32> = (0..random.random_range(0..5)).map(|at| 9 + 3 * at).collect();
        let scoring = if given.is_empty() { Scoring::Off } else { Scoring::Given };
        Job { given, scoring, ..Job::new(prompt, adapter, max_tokens) }
    };
    (0..count).map(|_| job(random)).collect()
}

fn memory(random: &mut SmallRng, kv_dtype: KvDtype) -> Memory {
    Memory {
        num_blocks: random.random_range(24..80),
        block_size: random.random_range(3..12),
        max_batch_tokens: random.random_range(5..80),
        max_num_seqs: random.random_range(1..10),
        prefix_cache: true,
        adapter_bytes: 0,
        kv_dtype,
    }
}

/// Draws mixes and holds each job's tokens and log-probabilities to those that it gets alone. Returns prompt rows found.
fn mixes_change_no_bit(model: &str, run: impl Fn(&[Job], Memory) -> (Vec<Vec<Sampled>>, u64)) -> u64 {
    let adapters = adapters(model);
    let mut found = 0;
    for seed in 0..4 {
        let mut random = SmallRng::seed_from_u64(seed);
        let jobs = mix(&mut random, &adapters, 14);
        for kv_dtype in [KvDtype::Computed, KvDtype::F16] {
            let roomy = Memory { kv_dtype, ..Memory::default() };
            let alone: Vec<_> =
                jobs.iter().map(|job| run(std::slice::from_ref(job), roomy).0.remove(0)).collect();
            for _ in 0..2 {
                let memory = memory(&mut random, kv_dtype);
                let (together, hits) = run(&jobs, memory);
                assert!(together == alone, "{model}, seed {seed}, {memory:?}");
                found += hits;
            }
        }
    }
    found
}

#[test]
fn decoder_only_mixes_change_no_bit() {
    for (model, recipe) in [
        ("llama", Recipe::Stored),
        ("gpt2", Recipe::Stored),
        ("gemma2", Recipe::Stored),
        ("gemma3", Recipe::I8),
    ] {
        let run = |jobs: &[Job], memory| {
            let (results, scheduler) = generate_causal(load_decoder(&golden(model), recipe, 2), jobs, memory);
            (results, scheduler.prefix_rows().1)
        };
        let hits = mixes_change_no_bit(model, run);
        assert!(hits > 100, "{model}: {hits} rows were found");
    }
}

#[test]
fn encoder_decoder_mixes_change_no_bit() {
    for (model, recipe) in [("t5-v1_0", Recipe::Stored), ("t5-v1_1", Recipe::I8)] {
        let run = |jobs: &[Job], memory| {
            let (results, scheduler) = generate(load_t5(&golden(model), recipe, 2), jobs, memory);
            (results, scheduler.prefix_rows().1)
        };
        mixes_change_no_bit(model, run);
    }
}

#[test]
fn the_same_prompt_is_encoded_once() {
    let adapter = adapters("t5-v1_1").remove(0);
    let job = Job::new((5..25).collect(), adapter, 8);
    let rows = 20 + job.adapter.as_ref().map_or(0, |lease| lease.weights().prompt_length()) as u64;
    let run = |prefix_cache| {
        let memory = Memory { prefix_cache, ..Memory::default() };
        generate(load_t5(&golden("t5-v1_1"), Recipe::Stored, 1), &vec![job.clone(); 4], memory)
    };
    let ((cold, _), (warm, scheduler)) = (run(false), run(true));
    assert_eq!((scheduler.prefix_rows(), warm), ((4 * rows, 3 * rows), cold));
}
