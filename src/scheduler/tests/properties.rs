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

fn job() -> impl Strategy<Value = Job> {
    let lengths = (1_usize..24, 1_usize..24, 0_usize..30);
    (lengths, prop_oneof![4 => Just(0), 1 => -1..=1])
        .prop_map(|((prompt, max_tokens, ends_at), priority)| Job { prompt, max_tokens, ends_at, priority })
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
    (blocks, 1_usize..6, 1_usize..6, 0_usize..40, 1_usize..7).prop_map(
        |(num_blocks, block_size, max_num_seqs, max_batch_tokens, encoder_layers)| SchedulerConfig {
            num_blocks,
            block_size: NonZeroUsize::new(block_size).unwrap(),
            max_num_seqs,
            max_batch_tokens,
            prompts: PromptPath::Encoder { layers: encoder_layers },
            eos: vec![EOS],
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

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

/// That the properties above are tried where it hurts: little memory, and long prompts between short ones.
#[test]
fn crowded_memory_preempts_and_everything_still_ends() {
    let crowded = SchedulerConfig { max_batch_tokens: 8, max_num_seqs: 6, ..config(14, 2) };
    let mut world = World::new(crowded);
    for index in 0..60 {
        let (prompt, max_tokens) = if index % 7 == 3 { (12, 12) } else { (1 + index % 4, 16 + index % 8) };
        world.add(Job { prompt, max_tokens, ends_at: 10 + index % 11, priority: 0 });
        if index % 3 == 0 {
            world.step();
        }
    }
    world.finish();
    assert!(world.preemptions() > 10, "{} preemptions", world.preemptions());
}
