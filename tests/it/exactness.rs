//! The server's numbers are those of transformers, for every kind of adapter, alone and in a crowd.

use std::num::NonZeroUsize;

use candle_core::{DType, Device, Tensor};
use dept::{
    adapter::AdapterLease,
    backbones::t5::{DecoderBatch, T5},
    domain::Scoring,
    kernels::{
        dept_embed::{AdapterSlot, Adapters, DeltaRow, Row, RowTable},
        ragged_attention::{Keys, Span},
    },
    kv::BlockPool,
    layers::Recipe,
    sampling::Sampled,
};
use serde::Deserialize;

use crate::support::{Job, Memory, generate, golden, lease, load_t5};

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    adapter: Option<String>,
    twins: Vec<String>,
    task: Option<usize>,
    prompt_ids: Vec<u32>,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

fn cases(file: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(golden(&format!("expected/{file}.json"))).unwrap();
    let expected: Expected = serde_json::from_str(&text).unwrap();
    expected.cases
}

fn job(case: &Case, adapter: Option<AdapterLease>) -> Job {
    Job::new(case.prompt_ids.clone(), adapter, case.tokens.len())
}

/// The golden adapter `name` of the model whose expected values are in `file`.
fn adapter_of(file: &str, name: &str, task: Option<usize>) -> AdapterLease {
    let model = file.trim_end_matches(".q8_0");
    lease(&golden(&format!("adapters/{model}/{name}")), task)
}

fn jobs(file: &str, cases: &[Case]) -> Vec<Job> {
    let adapter = |case: &Case| case.adapter.as_ref().map(|name| adapter_of(file, name, case.task));
    cases.iter().map(|case| job(case, adapter(case))).collect()
}

fn assert_tokens(case: &Case, found: &[Sampled]) {
    assert_tokens_within(1e-3, case, found);
}

/// The tokens of `case`, with log-probabilities within `bound` of its own.
fn assert_tokens_within(bound: f32, case: &Case, found: &[Sampled]) {
    let tokens: Vec<u32> = found.iter().map(|sampled| sampled.token).collect();
    assert_eq!(tokens, case.tokens, "{}", case.name);
    for (at, (sampled, expected)) in found.iter().zip(&case.logprobs).enumerate() {
        let logprob = sampled.logprob.unwrap();
        assert!((logprob - expected).abs() < bound, "{} token {at}: {expected} {logprob}", case.name);
    }
}

/// Every case of `expected`, alone and all together, on the model at `path`.
fn greedy_is_exact(path: &str, expected: &str) {
    let cases = cases(expected);
    let jobs = jobs(expected, &cases);
    let model = || load_t5(&golden(path), Recipe::Stored, 2);
    let alone: Vec<Vec<Sampled>> = cases
        .iter()
        .zip(&jobs)
        .map(|(case, job)| {
            let found = generate(model(), std::slice::from_ref(job), Memory::default()).0.remove(0);
            assert_tokens(case, &found);
            found
        })
        .collect();
    let (together, scheduler) = generate(model(), &jobs, Memory::default());
    assert_eq!(together, alone, "neighbours change no bit");
    assert_eq!(scheduler.kv_usage(), 0.0, "every block is free again");
    // Little memory: cohorts in many slices, and sequences that give way to others and are computed again.
    let tight =
        Memory { num_blocks: 40, block_size: 8, max_batch_tokens: 48, max_num_seqs: 8, ..Memory::default() };
    let (tight, scheduler) = generate(model(), &jobs, tight);
    assert_eq!(tight, alone, "preemption changes no bit");
    assert!(scheduler.preemptions() > 0, "memory was tight");
    // Given instead of chosen, the same tokens score the same, and their prompts are encoded once for both.
    let given = cases.iter().zip(&jobs).map(|(case, job)| Job {
        given: case.tokens.clone(),
        scoring: Scoring::Given,
        max_tokens: 0,
        ..job.clone()
    });
    let both: Vec<Job> = given.zip(&jobs).flat_map(|(given, job)| [given, job.clone()]).collect();
    let (scored, _) = generate(model(), &both, Memory { prefix_cache: true, ..Memory::default() });
    assert!(scored.chunks(2).zip(&alone).all(|(pair, alone)| &pair[0] == alone && &pair[1] == alone));
    for (case, job) in cases.iter().zip(&jobs) {
        for twin in &case.twins {
            let twin = Job { adapter: Some(adapter_of(expected, twin, None)), ..job.clone() };
            let found = generate(model(), &[twin], Memory::default()).0.remove(0);
            let of_case = alone[cases.iter().position(|other| other.name == case.name).unwrap()].clone();
            assert_eq!(found, of_case, "{}", case.name);
        }
    }
}

/// Every case of `expected` in one batch on the model at `path`.
fn greedy_is_close(path: &str, expected: &str) {
    greedy_is_within(1e-3, path, expected, Recipe::F32);
}

/// The same with log-probabilities within `bound`.
fn greedy_is_within(bound: f32, path: &str, expected: &str, recipe: Recipe) {
    let cases = cases(expected);
    let model = load_t5(&golden(path), recipe, 1);
    for (case, found) in cases.iter().zip(generate(model, &jobs(expected, &cases), Memory::default()).0) {
        assert_tokens_within(bound, case, &found);
    }
}

#[test]
fn t5_v1_0_generates_what_transformers_does() {
    greedy_is_exact("t5-v1_0", "t5-v1_0");
}

#[test]
fn t5_v1_1_generates_what_transformers_does() {
    greedy_is_exact("t5-v1_1", "t5-v1_1");
}

#[test]
fn shards_in_bfloat16_are_the_same_model() {
    greedy_is_close("t5-v1_0-sharded", "t5-v1_0");
}

#[test]
fn gguf_f32_is_the_same_model() {
    greedy_is_close("t5-v1_1.f32.gguf", "t5-v1_1");
}

#[test]
fn gguf_q8_0_computes_with_its_own_weights() {
    greedy_is_close("t5-v1_1.q8_0.gguf", "t5-v1_1.q8_0");
    // The file's own bytes and activations of 15 bits, beside the widened weights in f32.
    greedy_is_within(5e-3, "t5-v1_1.q8_0.gguf", "t5-v1_1.q8_0", Recipe::Fine);
}

/// `[P; E + delta]` through the whole encoder. `(m + n, d)`
fn encoder_output(model: &T5, prompt: &[u32], adapter: Option<&AdapterLease>) -> Tensor {
    let mut rows = RowTable::default();
    let mut slots = Vec::new();
    if let Some(lease) = adapter {
        let weights = lease.weights();
        slots.push(AdapterSlot::from(&**weights));
        (0..weights.prompt_length() as u32).for_each(|index| rows.push(Row::Prompt { slot: 0, index }));
    }
    let updated = adapter.is_some_and(|lease| lease.weights().updates_tokens());
    for (index, &token) in prompt.iter().enumerate() {
        let delta = updated.then_some(DeltaRow { slot: 0, index: index as u32 });
        rows.push(Row::Token { token, delta });
    }
    let count = rows.len();
    let keys = Keys::Rows { start: 0 };
    let span = Span { queries: 0..count, first_position: 0, context: count, keys, causal: false };
    let hidden = model.embed(&slots.into(), &rows).unwrap();
    let hidden = model.encode(hidden, &[span], 0..model.config().encoder_layers).unwrap();
    model.finish_encoder(&hidden).unwrap()
}

/// `[P; E + ReLU(E . A + a) . B + b]` of both forms of ADePT, as the runner asks for it.
#[test]
fn adept_embeds_what_its_formula_says() {
    let model = load_t5(&golden("t5-v1_1"), Recipe::Stored, 2);
    let expected =
        candle_core::safetensors::load(golden("adept/expected.safetensors"), &Device::Cpu).unwrap();
    let ids: Vec<u32> = expected["ids"].to_vec1().unwrap();
    for (form, method) in [("biased", "adept"), ("unbiased", "adept")] {
        let adapter = lease(&golden(&format!("adept/{form}")), None);
        assert_eq!((adapter.manifest().method.as_str(), adapter.weights().max_length()), (method, None));
        let mut rows = RowTable::default();
        (0..4).for_each(|index| rows.push(Row::Prompt { slot: 0, index }));
        // Which row is asked for changes nothing.
        let token =
            |(at, &token)| Row::Token { token, delta: Some(DeltaRow { slot: 0, index: at as u32 * 7 }) };
        ids.iter().enumerate().map(token).for_each(|row| rows.push(row));
        let found = model.embed(&vec![AdapterSlot::from(&**adapter.weights())].into(), &rows).unwrap();
        let [found, expected] =
            [&found, &expected[form]].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        assert_eq!(found.len(), expected.len());
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() < 1e-5, "{form} {at}: {expected} {found}");
        }
    }
}

/// ADePT through the runner: its outputs change, and neither a crowd nor the threads change them.
#[test]
fn adept_is_the_same_alone_and_in_a_crowd() {
    let model = || load_t5(&golden("t5-v1_1"), Recipe::Stored, 2);
    let adapters =
        ["adept/biased", "adept/unbiased", "adapters/t5-v1_1/dept"].map(|path| lease(&golden(path), None));
    let prompt: Vec<u32> = (3..23).chain([1]).collect();
    let mut jobs = vec![Job::new(prompt.clone(), None, 6)];
    jobs.extend(adapters.into_iter().map(|adapter| Job::new(prompt.clone(), Some(adapter), 6)));
    let (together, _) = generate(model(), &jobs, Memory::default());
    for (at, (job, crowd)) in jobs.iter().zip(&together).enumerate() {
        let (alone, _) = generate(model(), std::slice::from_ref(job), Memory::default());
        assert_eq!(&alone[0], crowd, "job {at}");
        assert!(!together[..at].contains(crowd), "job {at} has an adapter of its own");
    }
}

/// The logits of the decoder's first row. `(1, vocab)`
fn first_logits(model: &T5, encoded: &Tensor) -> Tensor {
    let block_size = NonZeroUsize::new(8).unwrap();
    let rows = encoded.dims()[0];
    let mut pool = BlockPool::new(64, block_size);
    let (mut prompt, mut past) = (pool.table(rows), pool.table(1));
    assert!(pool.append_slots(&mut prompt, rows).unwrap().is_none());
    assert!(pool.append_slots(&mut past, 1).unwrap().is_none());
    let slab = |_| Tensor::zeros((64 * 8, model.slab_width()), DType::F32, &Device::Cpu).unwrap();
    let slabs: Vec<Tensor> = (0..model.config().decoder_layers).map(slab).collect();
    let slots = prompt.slots(0..rows).map(|slot| slot as u32).collect();
    model.write_prompt(encoded, &slabs, &slots).unwrap();
    let span = |context, blocks, causal| Span {
        queries: 0..1,
        first_position: 0,
        context,
        keys: Keys::Blocks { blocks, block_size: 8 },
        causal,
    };
    let (own, cross) = ([span(1, past.blocks(), true)], [span(rows, prompt.blocks(), false)]);
    let slots = vec![past.slot_of(0) as u32].into();
    let mut start = RowTable::default();
    start.push(Row::Token { token: model.config().decoder_start, delta: None });
    let batch = DecoderBatch { past: &own, prompt: &cross, slots: &slots, slabs: &slabs };
    let hidden = model.decode(model.embed(&Adapters::default(), &start).unwrap(), &batch).unwrap();
    let logits = model.logits(&hidden).unwrap();
    pool.release(prompt);
    pool.release(past);
    logits
}

fn assert_close(what: &str, found: &Tensor, expected: &Tensor) {
    let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() < 1e-4, "{what} at {at}: expected {expected}, found {found}");
    }
}

#[test]
fn encoder_outputs_and_logits_are_those_of_transformers() {
    for (path, expected) in
        [("t5-v1_0", "t5-v1_0"), ("t5-v1_1", "t5-v1_1"), ("t5-v1_1.q8_0.gguf", "t5-v1_1.q8_0")]
    {
        let model = load_t5(&golden(path), Recipe::F32, 2);
        let file = golden(&format!("expected/{expected}.safetensors"));
        let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let mut compared = 0;
        for case in cases(expected) {
            let adapter = case.adapter.as_ref().map(|name| adapter_of(expected, name, case.task));
            let encoded = encoder_output(&model, &case.prompt_ids, adapter.as_ref());
            if let Some(expected) = tensors.get(&format!("{}.encoder", case.name)) {
                assert_close(&format!("{path} {} encoder", case.name), &encoded, expected);
                compared += 1;
            }
            let expected = tensors[&format!("{}.logits", case.name)].narrow(0, 0, 1).unwrap();
            assert_close(&format!("{path} {} logits", case.name), &first_logits(&model, &encoded), &expected);
        }
        assert!(compared > 3, "{path} compares encoder outputs");
    }
}
