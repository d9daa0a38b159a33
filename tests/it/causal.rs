//! Decoder-only models give transformers' numbers, from folders and GGUF files, alone, in a crowd and in pieces.

use candle_core::{DType, Device, Tensor};
use dept::{
    adapter::AdapterLease,
    backbones::decoder::CausalBatch,
    domain::Scoring,
    kernels::{
        dept_embed::{Adapters, Row, RowTable},
        ragged_attention::{Keys, Span},
    },
    kv::BlockId,
    layers::Recipe,
    runner::KvDtype,
    sampling::Sampled,
};
use serde::Deserialize;

use crate::support::{
    Job, Memory,
    causal::{CausalJob, Pieces, generate, load_decoder, logprob},
    generate_causal, golden, lease,
};

const FAMILIES: [&str; 7] = ["gpt2", "llama", "llama3", "qwen2", "qwen3", "gemma2", "gemma3"];

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

/// Every case of `expected` on the model at `path`, in f32: tokens, logits and log-probabilities.
fn is_exact(path: &str, expected: &str) {
    is_within(1e-4, path, expected, Recipe::F32);
}

/// The same within `bound` of logits and ten times that of log-probabilities.
fn is_within(bound: f32, path: &str, expected: &str, recipe: Recipe) {
    let cases = cases(expected);
    let leases = leases(expected, &cases);
    let model = load_decoder(&golden(path), recipe, 2);
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
                    (found - expected).abs() < bound,
                    "{path} {} step {step}: expected {expected}, found {found}",
                    case.name
                );
            }
        }
        for ((logits, &token), &expected) in found.logits.iter().zip(&case.tokens).zip(&case.logprobs) {
            let apart = (logprob(logits, token) - f64::from(expected)).abs();
            assert!(apart < 10.0 * f64::from(bound), "{path} {}", case.name);
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

/// The file's own bytes and activations of 15 bits, beside transformers on the widened weights in f32. With 8 bits the tokens of
/// a model of random weights are others; what they cost is measured on real ones (`real_models.rs`).
#[test]
fn a_block_format_is_computed_within_its_bound() {
    is_within(5e-3, "llama.q8_0.gguf", "llama.q8_0", Recipe::Fine);
}

#[test]
fn neighbours_pieces_and_threads_change_no_bit() {
    let models =
        FAMILIES.iter().flat_map(|&family| [(family, family, Recipe::F32), (family, family, Recipe::I8)]);
    // A block format's own arithmetic.
    let own = [Recipe::Stored, Recipe::Fine].map(|recipe| ("llama", "llama.q8_0.gguf", recipe));
    let models = models.chain(own);
    for (family, path, recipe) in models {
        let cases = cases(family);
        let leases = leases(family, &cases);
        let jobs = jobs(&cases, &leases);
        {
            let [one, two] = [1, 2].map(|threads| load_decoder(&golden(path), recipe, threads));
            let alone: Vec<_> =
                jobs.iter().map(|job| generate(&one, &[*job], Pieces::Whole).remove(0)).collect();
            for (model, pieces) in [(&one, Pieces::Rows(1)), (&two, Pieces::Rows(7)), (&two, Pieces::Whole)] {
                let together = generate(model, &jobs, pieces);
                assert!(together == alone, "{path} in {recipe:?} with {pieces:?}");
            }
        }
    }
}

#[test]
fn a_schedule_changes_no_bit_whatever_its_memory() {
    for family in FAMILIES {
        let cases = cases(family);
        let leases = leases(family, &cases);
        let jobs: Vec<Job> = cases
            .iter()
            .zip(leases)
            .map(|(case, adapter)| Job::new(case.prompt_ids.clone(), adapter, case.tokens.len()))
            .collect();
        let run = |memory| generate_causal(load_decoder(&golden(family), Recipe::Stored, 2), &jobs, memory);
        let (roomy, scheduler) = run(Memory::default());
        assert_eq!(scheduler.kv_usage(), 0.0, "every block is free again");
        for (case, found) in cases.iter().zip(&roomy) {
            let tokens: Vec<u32> = found.iter().map(|sampled| sampled.token).collect();
            assert_eq!(tokens, case.tokens, "{family} {}", case.name);
        }
        // Prompts in pieces of a few rows, and sequences that give way to others and are computed again.
        let tight = Memory {
            num_blocks: 20,
            block_size: 8,
            max_batch_tokens: 7,
            max_num_seqs: 4,
            ..Memory::default()
        };
        let (tight, scheduler) = run(tight);
        assert_eq!(tight, roomy, "{family}: pieces and preemption change no bit");
        assert!(scheduler.preemptions() > 0, "memory was tight");
    }
}

/// What generation chose, given and scored: the same log-probabilities, whatever else there is.
#[test]
fn given_tokens_score_what_they_scored_when_they_were_chosen() {
    for family in FAMILIES {
        let cases = cases(family);
        let leases = leases(family, &cases);
        let model = || load_decoder(&golden(family), Recipe::Stored, 2);
        let generate = |jobs: &[Job], memory| generate_causal(model(), jobs, memory).0;
        let asked = cases.iter().zip(&leases);
        let asked =
            asked.map(|(case, lease)| Job::new(case.prompt_ids.clone(), lease.clone(), case.tokens.len()));
        let asked: Vec<Job> = asked.collect();
        let given = |chosen: &[Vec<Sampled>]| -> Vec<Job> {
            let jobs = asked.iter().zip(chosen).map(|(job, chosen)| Job {
                given: chosen.iter().map(|sampled| sampled.token).collect(),
                scoring: Scoring::Given,
                max_tokens: 0,
                ..job.clone()
            });
            jobs.collect()
        };
        let tight = Memory {
            num_blocks: 20,
            block_size: 8,
            max_batch_tokens: 7,
            max_num_seqs: 4,
            prefix_cache: true,
            ..Memory::default()
        };
        // These models are of random weights, whose scores are large: f16 may turn a close call.
        for (kv_dtype, most_off) in [(KvDtype::Computed, 1e-3), (KvDtype::F16, 5e-2)] {
            let (roomy, tight) = (Memory { kv_dtype, ..Memory::default() }, Memory { kv_dtype, ..tight });
            let chosen = generate(&asked, roomy);
            for memory in [roomy, tight] {
                assert!(generate(&given(&chosen), memory) == chosen, "{family} {memory:?}");
            }
            for (case, found) in cases.iter().zip(&chosen) {
                for ((sampled, token), expected) in found.iter().zip(&case.tokens).zip(&case.logprobs) {
                    let off = (sampled.logprob.unwrap() - expected).abs();
                    assert!(off < most_off, "{family} {} {kv_dtype:?}: {off}", case.name);
                    if sampled.token != *token {
                        assert_eq!(kv_dtype, KvDtype::F16, "{family} {}", case.name);
                        break;
                    }
                }
            }
        }
        // As a part of the prompt the bare model reads them the same way.
        let bare = cases.iter().find(|case| case.adapter.is_none()).unwrap();
        let whole = [&bare.prompt_ids[..], &bare.tokens].concat();
        let as_prompt = Job { scoring: Scoring::Prompt, ..Job::new(whole, None, 0) };
        let as_given = Job {
            given: bare.tokens.clone(),
            scoring: Scoring::Given,
            ..Job::new(bare.prompt_ids.clone(), None, 0)
        };
        let [prompt, given] = [as_prompt, as_given].map(|job| generate(&[job], tight).remove(0));
        assert_eq!(prompt.len(), bare.prompt_ids.len() - 1 + bare.tokens.len());
        assert_eq!(prompt[bare.prompt_ids.len() - 1..], given);
    }
}

#[test]
fn rows_that_do_not_fit_are_errors() {
    for family in ["gpt2", "llama"] {
        let model = load_decoder(&golden(family), Recipe::Stored, 1);
        let slab = Tensor::zeros((8, model.slab_width()), DType::F32, &Device::Cpu).unwrap();
        let slabs = vec![slab; model.layers()];
        let run = |token, position, slot, slabs: &[Tensor]| {
            let mut rows = RowTable::default();
            rows.push(Row::Token { token, delta: None });
            let keys = Keys::Blocks { blocks: &[BlockId::new(0)], block_size: 8 };
            let span = Span { queries: 0..1, first_position: 0, context: 1, keys, causal: true };
            let (positions, slots) = (&vec![position].into(), &vec![slot].into());
            let hidden = model.embed(&Adapters::default(), &rows, positions)?;
            let batch = CausalBatch { spans: &[span], positions, slots, slabs };
            model.forward(hidden, &batch)
        };
        assert!(run(3, 0, 0, &slabs).is_ok());
        assert!(run(model.config().vocab as u32, 0, 0, &slabs).is_err(), "a token beyond the table");
        assert!(run(3, 1000, 0, &slabs).is_err(), "a position beyond the model's reach");
        assert!(run(3, 0, 8, &slabs).is_err(), "a slot beyond the slab");
        assert!(run(3, 0, 0, &slabs[1..]).is_err(), "a slab too few");
    }
}
