mod causal;
mod fairness;
mod model;
mod properties;

use std::{
    num::NonZeroU32,
    path::Path,
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use serde_json::json;

use super::*;
use crate::{
    adapter::{AdapterLease, AdapterWeights, Card, Generation, LowRank, Manifest, Matrix, folder},
    domain::{SamplingParams, Scoring, TenantId},
    sampling::Sampler,
};

const EOS: u32 = 1;

fn config(num_blocks: u32, block_size: usize) -> SchedulerConfig {
    SchedulerConfig {
        num_blocks,
        block_size: NonZeroUsize::new(block_size).unwrap(),
        max_num_seqs: 8,
        max_batch_tokens: 16,
        prompts: PromptPath::Encoder { layers: 4 },
        eos: vec![EOS],
        prefix_cache: false,
    }
}

/// An adapter of m soft-prompt rows, and with a low-rank pair of s rows where `s` says so. All numbers are 0.
fn lease(name: &str, m: usize, s: Option<usize>) -> AdapterLease {
    let mut config = json!({"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": m,
                            "token_dim": 2, "num_transformer_submodules": 1});
    if let Some(s) = s {
        config["peft_type"] = "PROMPT_TUNING_LORA".into();
        config["r"] = 1.into();
        config["max_length"] = s.into();
        config["lora_alpha"] = 8.into();
    }
    let zeros = |rows: usize, cols: usize| Matrix::new(rows, cols, vec![0.0; rows * cols]).unwrap();
    let low_rank = s.map(|s| LowRank::new(zeros(s, 1), zeros(1, 2), 8.0).unwrap());
    let weights = AdapterWeights::new(zeros(m, 2), low_rank).unwrap();
    let manifest = Manifest::parse(config.to_string().as_bytes()).unwrap();
    let name = name.parse().unwrap();
    let generation = Generation::new(name, manifest, weights, Card::default(), SystemTime::UNIX_EPOCH);
    AdapterLease::new(Arc::new(generation))
}

fn request(id: u64, prompt: usize, max_tokens: usize) -> NewSequence {
    NewSequence {
        id: SequenceId(id),
        tenant: TenantId::default_tenant(),
        weight: NonZeroU32::MIN,
        adapter: None,
        prompt: vec![5; prompt],
        given: Vec::new(),
        scoring: Scoring::Off,
        sampler: Sampler::new(&SamplingParams::greedy(), 0, &[], 10),
        guide: None,
        max_tokens,
        min_tokens: 0,
        priority: 0,
    }
}

fn step(scheduler: &mut Scheduler) -> StepPlan {
    let mut plan = StepPlan::default();
    scheduler.plan_step(&mut plan);
    plan
}

/// Plans a step and lets every decode that samples choose token 9. Sequences that end are removed.
fn run(scheduler: &mut Scheduler) -> StepPlan {
    let plan = step(scheduler);
    scheduler.advance(&plan);
    for decode in plan.decode.iter().filter(|decode| decode.samples) {
        if scheduler.commit(decode.sequence, 9).is_some() {
            scheduler.remove(decode.sequence);
        }
    }
    plan
}

fn decoded(plan: &StepPlan) -> Vec<u64> {
    plan.decode.iter().map(|decode| decode.sequence.0).collect()
}

fn encoded(plan: &StepPlan) -> Vec<u64> {
    plan.encode.iter().flat_map(|encode| &encode.sequences).map(|id| id.0).collect()
}

fn used_blocks(scheduler: &Scheduler) -> usize {
    scheduler.pool.used_blocks()
}

#[test]
fn what_fits_the_whole_pool_is_taken_and_one_row_more_is_not() {
    // 12 prompt rows are 3 blocks of 4, 8 tokens are 2.
    let mut scheduler = Scheduler::new(config(5, 4));
    scheduler.add(request(0, 12, 8)).unwrap();
    assert_eq!(scheduler.add(request(1, 13, 8)), Err(NeverFits { needed: 6, pool: 5 }));
    assert_eq!(scheduler.add(request(2, 12, 9)), Err(NeverFits { needed: 6, pool: 5 }));
    assert_eq!((scheduler.waiting(), scheduler.sequences().len()), (1, 1));
    let steps = (0..).take_while(|_| !run(&mut scheduler).is_empty()).count();
    assert_eq!(steps, 8, "one token a step, to the last block");
    assert_eq!(used_blocks(&scheduler), 0);
}

#[test]
fn a_huge_max_tokens_is_refused_without_making_room_for_it() {
    let mut scheduler = Scheduler::new(config(5, 1));
    for max_tokens in [u32::MAX as usize, usize::MAX / 2, usize::MAX] {
        let refused = scheduler.add(request(0, 3, max_tokens)).unwrap_err();
        assert_eq!((refused.needed, refused.pool), (max_tokens.saturating_add(3), 5));
    }
    assert!(scheduler.sequences().is_empty() && scheduler.waiting() == 0);
}

#[test]
fn virtual_tokens_take_blocks_like_prompt_tokens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/adapters/t5-v1_1/dept");
    let generation = folder::load(&path).unwrap().into_generation("golden".parse().unwrap());
    let lease = AdapterLease::new(Arc::new(generation));
    let virtual_tokens = lease.weights().prompt_length();
    assert!(virtual_tokens > 0);
    let with_adapter = |id| NewSequence { adapter: Some(lease.clone()), ..request(id, 2, 1) };
    let most = virtual_tokens + 2 + 1;
    let refused = Scheduler::new(config(most as u32 - 1, 1)).add(with_adapter(0)).unwrap_err();
    assert_eq!(refused, NeverFits { needed: most, pool: most - 1 });
    let mut scheduler = Scheduler::new(config(most as u32, 1));
    scheduler.add(with_adapter(0)).unwrap();
    step(&mut scheduler);
    assert_eq!(scheduler.sequences().get(SequenceId(0)).unwrap().prompt.len(), virtual_tokens + 2);
    assert_eq!(used_blocks(&scheduler), most);
    // Two requests, one generation; the lease goes with the sequence.
    scheduler.remove(SequenceId(0)).unwrap();
    assert_eq!(used_blocks(&scheduler), 0);
}

#[test]
fn an_end_token_ends_without_being_text_and_the_last_token_ends_with_it() {
    let mut scheduler = Scheduler::new(config(32, 4));
    for id in 0..2 {
        scheduler.add(request(id, 3, 2)).unwrap();
    }
    let plan = step(&mut scheduler);
    scheduler.advance(&plan);
    let [stopping, long] = [SequenceId(0), SequenceId(1)];
    assert_eq!((scheduler.commit(stopping, 9), scheduler.commit(long, 9)), (None, None));
    step(&mut scheduler);
    assert_eq!(scheduler.commit(stopping, EOS), Some(FinishReason::Stop));
    assert_eq!(scheduler.commit(long, 8), Some(FinishReason::Length));
    assert_eq!(scheduler.remove(stopping).unwrap().answer, [9]);
    assert_eq!(scheduler.remove(long).unwrap().answer, [9, 8]);
    assert!(scheduler.remove(long).is_none() && scheduler.commit(long, 9).is_none());
}

#[test]
fn larger_priority_first_then_arrival() {
    let mut scheduler = Scheduler::new(SchedulerConfig { max_num_seqs: 1, ..config(64, 4) });
    for (id, priority) in [(0, 0), (1, i32::MIN), (2, 5), (3, 0), (4, i32::MAX), (5, 5)] {
        scheduler.add(NewSequence { priority, ..request(id, 3, 1) }).unwrap();
    }
    let order: Vec<u64> = (0..6).flat_map(|_| encoded(&run(&mut scheduler))).collect();
    assert_eq!(order, [4, 2, 5, 0, 3, 1]);
}

#[test]
fn short_prompts_enter_together_while_others_decode() {
    let mut scheduler = Scheduler::new(config(64, 4));
    scheduler.add(request(0, 4, 9)).unwrap();
    assert_eq!(decoded(&run(&mut scheduler)), [0]);
    // 16 rows a cohort: three of 5 and not a fourth.
    (1..5).for_each(|id| scheduler.add(request(id, 5, 9)).unwrap());
    let plan = run(&mut scheduler);
    assert_eq!((encoded(&plan), decoded(&plan)), (vec![1, 2, 3], vec![0, 1, 2, 3]));
    assert_eq!(plan.encode.unwrap().layers, 0..4);
    assert_eq!(decoded(&run(&mut scheduler)), [0, 1, 2, 3, 4]);
}

#[test]
fn a_long_prompt_passes_the_encoder_in_slices_and_nobody_stalls() {
    let mut scheduler = Scheduler::new(config(64, 4));
    scheduler.add(request(0, 4, 9)).unwrap();
    run(&mut scheduler);
    // 40 rows at 16 rows a whole pass: 1.6 of 4 blocks a step.
    scheduler.add(request(1, 40, 9)).unwrap();
    scheduler.add(request(2, 4, 9)).unwrap();
    for layer in 0..4 {
        let plan = run(&mut scheduler);
        let encode = plan.encode.clone().unwrap();
        assert_eq!((encode.cohort, encode.layers), (2, layer..layer + 1));
        assert_eq!(encode.sequences, [SequenceId(1)]);
        assert_eq!(decoded(&plan), if encode.last { vec![0, 1] } else { vec![0] });
        assert_eq!(scheduler.running() + scheduler.waiting(), 3, "each is counted once");
    }
    assert_eq!(encoded(&run(&mut scheduler)), [2]);
}

#[test]
fn a_long_prompt_does_the_rest_at_once_when_nobody_is_left_to_stall() {
    let mut scheduler = Scheduler::new(config(64, 4));
    scheduler.add(request(0, 4, 2)).unwrap();
    run(&mut scheduler);
    scheduler.add(request(1, 40, 9)).unwrap();
    assert_eq!(run(&mut scheduler).encode.unwrap().layers, 0..1);
    let plan = run(&mut scheduler);
    assert_eq!((plan.encode.clone().unwrap().layers, decoded(&plan)), (1..4, vec![1]));
}

#[test]
fn a_prompt_cancelled_inside_the_encoder_leaves_nothing_behind() {
    let mut scheduler = Scheduler::new(config(64, 4));
    scheduler.add(request(0, 4, 9)).unwrap();
    run(&mut scheduler);
    let before = used_blocks(&scheduler);
    scheduler.add(request(1, 40, 9)).unwrap();
    scheduler.add(request(2, 40, 9)).unwrap();
    assert!(!run(&mut scheduler).encode.unwrap().last);
    assert_eq!((scheduler.running(), scheduler.waiting()), (2, 1));
    scheduler.remove(SequenceId(1)).unwrap();
    assert_eq!((scheduler.running(), scheduler.waiting()), (1, 1));
    assert_eq!((used_blocks(&scheduler), scheduler.preemptions()), (before, 0));
    let next = run(&mut scheduler).encode.unwrap();
    assert_eq!((next.cohort, next.sequences, next.layers), (3, vec![SequenceId(2)], 0..1));
}

#[test]
fn a_prompt_in_the_encoder_gives_way_before_any_that_decodes() {
    // The first may grow to 10 blocks of 12; the second's 8 + 1 fit beside its first 2 only.
    let mut scheduler =
        Scheduler::new(SchedulerConfig { prompts: PromptPath::Encoder { layers: 64 }, ..config(12, 2) });
    scheduler.add(request(0, 2, 18)).unwrap();
    run(&mut scheduler);
    scheduler.add(NewSequence { priority: 9, ..request(1, 16, 2) }).unwrap();
    scheduler.config.max_batch_tokens = 1;
    let mut given_up = 0;
    for generated in 1..18 {
        let plan = run(&mut scheduler);
        assert!(decoded(&plan).contains(&0), "the first goes on at token {generated}");
        given_up += usize::from(scheduler.preemptions() > 0 && plan.encode.is_none());
    }
    assert!(given_up > 0 && scheduler.preemptions() == 1);
    assert!(scheduler.sequences().get(SequenceId(0)).is_none());
    let plan = run(&mut scheduler);
    assert_eq!((encoded(&plan), decoded(&plan)), (vec![1], vec![1]));
}

#[test]
fn the_newest_gives_way_and_computes_its_tokens_again() {
    // Both prompts take one block; 5 blocks of 2 let each have one of its own, and one of them a second.
    let mut scheduler = Scheduler::new(config(5, 2));
    scheduler.add(request(0, 2, 8)).unwrap();
    scheduler.add(request(1, 2, 6)).unwrap();
    for _ in 0..2 {
        assert_eq!(decoded(&run(&mut scheduler)), [0, 1]);
    }
    let plan = run(&mut scheduler);
    assert_eq!((decoded(&plan), scheduler.preemptions()), (vec![0], 1));
    let preempted = scheduler.sequences().get(SequenceId(1)).unwrap();
    assert_eq!((preempted.generated(), preempted.computed, preempted.encoded), (2, 0, false));
    assert!(preempted.prompt.is_empty() && preempted.past.is_empty());
    while scheduler.sequences().get(SequenceId(0)).is_some() {
        assert_eq!(decoded(&run(&mut scheduler)), [0]);
    }
    let plan = step(&mut scheduler);
    assert_eq!(encoded(&plan), [1]);
    assert_eq!(plan.decode, [Decode { sequence: SequenceId(1), rows: 0..3, samples: true, scores: 0..0 }]);
    scheduler.advance(&plan);
    assert_eq!(scheduler.commit(SequenceId(1), 9), None);
    assert_eq!(step(&mut scheduler).decode[0].rows, 3..4);
}
