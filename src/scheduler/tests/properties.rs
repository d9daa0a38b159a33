use proptest::prelude::*;

use super::{
    model::{Job, World},
    *,
};

/// One thing that happens to a scheduler.
#[derive(Debug, Clone)]
enum Op {
    Add(Job),
    Cancel(usize),
    Steps(usize),
}

/// Prompts that begin alike and end differently.
fn prompt() -> impl Strategy<Value = Vec<u32>> {
    (1_usize..24, 0_u32..3, 0_usize..16).prop_map(|(length, variant, common)| {
        (0..length).map(|at| if at < common { at as u32 } else { 100 * variant + at as u32 }).collect()
    })
}

fn job() -> impl Strategy<Value = Job> {
    let who = (0_usize..2, 0_usize..3);
    let lengths = (prompt(), 1_usize..24, 0_usize..30);
    (who, lengths, prop_oneof![4 => Just(0), 1 => -1..=1]).prop_map(
        |((tenant, adapter), (prompt, max_tokens, ends_at), priority)| Job {
            tenant,
            adapter,
            prompt,
            max_tokens,
            ends_at,
            priority,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => job().prop_map(Op::Add),
        1 => any::<usize>().prop_map(Op::Cancel),
        4 => (1_usize..6).prop_map(Op::Steps),
    ]
}

fn any_config() -> impl Strategy<Value = SchedulerConfig> {
    let blocks = prop_oneof![2 => 1_u32..24, 1 => 24_u32..120];
    let limits = (blocks, 1_usize..6, 1_usize..6, 0_usize..40);
    let prompts = prop_oneof![
        (1_usize..7).prop_map(|layers| PromptPath::Encoder { layers }),
        Just(PromptPath::Decoder)
    ];
    (limits, prompts, any::<bool>()).prop_map(
        |((num_blocks, block_size, max_num_seqs, max_batch_tokens), prompts, prefix_cache)| SchedulerConfig {
            num_blocks,
            block_size: NonZeroUsize::new(block_size).unwrap(),
            max_num_seqs,
            max_batch_tokens,
            prompts,
            eos: vec![EOS],
            prefix_cache,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_sequence_ends_with_its_own_answer_and_leaves_nothing(
        config in any_config(),
        ops in prop::collection::vec(op(), 0..60),
    ) {
        let mut world = World::new(config);
        for op in ops {
            match op {
                Op::Add(job) => world.add(job),
                Op::Cancel(index) => world.cancel(index),
                Op::Steps(count) => (0..count).for_each(|_| world.step()),
            }
        }
        world.finish();
    }
}

/// A crowd in little memory, with long prompts between short ones: preemptions, rows computed, rows found.
fn crowd(num_blocks: u32, prompts: PromptPath, prefix_cache: bool) -> (u64, usize, u64) {
    let crowded = SchedulerConfig {
        max_batch_tokens: 8,
        max_num_seqs: 6,
        prompts,
        prefix_cache,
        ..config(num_blocks, 2)
    };
    let mut world = World::new(crowded);
    for index in 0..60 {
        let (length, max_tokens) = if index % 7 == 3 { (12, 12) } else { (1 + index % 4, 16 + index % 8) };
        world.add(Job {
            tenant: 0,
            adapter: index % 3,
            prompt: vec![7; length],
            max_tokens,
            ends_at: 10 + index % 11,
            priority: 0,
        });
        if index % 3 == 0 {
            world.step();
        }
    }
    world.finish();
    (world.preemptions(), world.computed, world.hits())
}

/// That the properties above are tried where it hurts, and that what is found need not be computed.
#[test]
fn crowded_memory_preempts_and_everything_still_ends() {
    for prompts in [PromptPath::Encoder { layers: 4 }, PromptPath::Decoder] {
        for prefix_cache in [false, true] {
            let (preemptions, ..) = crowd(16, prompts, prefix_cache);
            assert!(preemptions > 10, "{preemptions} preemptions");
        }
        let (_, cold, none) = crowd(60, prompts, false);
        let (_, warm, hits) = crowd(60, prompts, true);
        assert!(none == 0 && hits > 10, "{hits} hits");
        assert!(warm < cold, "{warm} rows computed where {cold} were without a cache");
    }
}
