//! Decoder-only models give transformers' numbers, from folders and GGUF files, alone, in a crowd and in pieces.

use candle_core::Device;
use dept::{adapter::AdapterLease, layers::Recipe};
use serde::Deserialize;

use crate::support::{
    causal::{CausalJob, Pieces, generate, load_decoder},
    golden, lease,
};

const FAMILIES: [&str; 6] = ["gpt2", "llama", "llama3", "qwen2", "qwen3", "gemma3"];

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    adapter: Option<String>,
    prompt_ids: Vec<u32>,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

fn cases(expected: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(golden(&format!("expected/{expected}.json"))).unwrap();
    let expected: Expected = serde_json::from_str(&text).unwrap();
    expected.cases
}

fn leases(expected: &str, cases: &[Case]) -> Vec<Option<AdapterLease>> {
    let family = expected.split('.').next().unwrap();
    let lease = |name: &String| lease(&golden(&format!("adapters/{family}/{name}")), None);
    cases.iter().map(|case| case.adapter.as_ref().map(lease)).collect()
}

fn jobs<'a>(cases: &'a [Case], leases: &'a [Option<AdapterLease>]) -> Vec<CausalJob<'a>> {
    let job = |(case, lease): (&'a Case, &'a Option<AdapterLease>)| CausalJob {
        prompt: &case.prompt_ids,
        adapter: lease.as_ref().map(|lease| &**lease.weights()),
        new_tokens: case.tokens.len(),
    };
    cases.iter().zip(leases).map(job).collect()
}

fn logprob(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    f64::from(logits[token as usize] - largest) - sum.ln()
}

/// Every case of `expected` on the model at `path`: tokens, logits and log-probabilities.
fn is_exact(path: &str, expected: &str) {
    let cases = cases(expected);
    let leases = leases(expected, &cases);
    let model = load_decoder(&golden(path), Recipe::Stored, 2);
    let file = golden(&format!("expected/{expected}.safetensors"));
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    assert!(cases.len() >= 5, "{expected} has cases");
    for (case, job) in cases.iter().zip(jobs(&cases, &leases)) {
        let found = generate(&model, &[job], Pieces::Whole).remove(0);
        assert_eq!(found.tokens, case.tokens, "{path} {}", case.name);
        let logits = tensors[&format!("{}.logits", case.name)].to_vec2::<f32>().unwrap();
        for (step, (found, expected)) in found.logits.iter().zip(&logits).enumerate() {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{path} {} step {step}: expected {expected}, found {found}",
                    case.name
                );
            }
        }
        for ((logits, &token), &expected) in found.logits.iter().zip(&case.tokens).zip(&case.logprobs) {
            assert!((logprob(logits, token) - f64::from(expected)).abs() < 1e-3, "{path} {}", case.name);
        }
    }
}

#[test]
fn folders_give_what_transformers_does() {
    FAMILIES.iter().for_each(|family| is_exact(family, family));
}

#[test]
fn gguf_files_are_the_same_models() {
    for family in FAMILIES.iter().filter(|family| **family != "gemma3") {
        is_exact(&format!("{family}.f32.gguf"), family);
    }
    // A Gemma file can't say all that its folder does.
    is_exact("gemma3.f32.gguf", "gemma3.f32");
    is_exact("llama.q8_0.gguf", "llama.q8_0");
}

#[test]
fn neighbours_pieces_and_threads_change_no_bit() {
    for family in FAMILIES {
        let cases = cases(family);
        let leases = leases(family, &cases);
        let jobs = jobs(&cases, &leases);
        for recipe in [Recipe::F32, Recipe::I8] {
            let [one, two] = [1, 2].map(|threads| load_decoder(&golden(family), recipe, threads));
            let alone: Vec<_> =
                jobs.iter().map(|job| generate(&one, &[*job], Pieces::Whole).remove(0)).collect();
            for (model, pieces) in [(&one, Pieces::Rows(1)), (&two, Pieces::Rows(7)), (&two, Pieces::Whole)] {
                let together = generate(model, &jobs, pieces);
                assert!(together == alone, "{family} in {recipe:?} with {pieces:?}");
            }
        }
    }
}
