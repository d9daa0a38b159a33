//! Decoder-only models: prompts in pieces, and rows that are there already.

use super::*;

fn causal(num_blocks: u32, block_size: usize) -> SchedulerConfig {
    SchedulerConfig { prompts: PromptPath::Decoder, prefix_cache: true, ..config(num_blocks, block_size) }
}

fn asks(id: u64, adapter: Option<&AdapterLease>, prompt: &[u32]) -> NewSequence {
    NewSequence { adapter: adapter.cloned(), prompt: prompt.to_vec(), ..request(id, 1, 4) }
}

/// The rows that a step computes, by sequence.
fn rows(plan: &StepPlan) -> Vec<(u64, std::ops::Range<usize>)> {
    plan.decode.iter().map(|decode| (decode.sequence.0, decode.rows.clone())).collect()
}

fn text(start: u32, length: u32) -> Vec<u32> {
    (start..start + length).collect()
}

#[test]
fn a_soft_prompt_is_computed_once_and_shared_with_its_unfinished_block() {
    let adapter = lease("pt", 6, None);
    let mut scheduler = Scheduler::new(causal(32, 4));
    // Three at once: the first computes P, the others wait for it.
    for (id, start) in [(0, 10), (1, 20), (2, 30)] {
        scheduler.add(asks(id, Some(&adapter), &text(start, 3))).unwrap();
    }
    assert_eq!(rows(&run(&mut scheduler)), [(0, 0..9)]);
    assert_eq!((scheduler.waiting(), scheduler.running()), (2, 1));
    let plan = run(&mut scheduler);
    assert_eq!(rows(&plan), [(0, 9..10), (1, 6..9), (2, 6..9)]);
    let copied: Vec<(usize, usize)> = plan.copies.iter().map(|copy| (copy.from.index(), copy.rows)).collect();
    assert_eq!(copied, [(1, 2), (1, 2)], "the two rows of P in its last block");
    let tables: Vec<Vec<usize>> = (0..3)
        .map(|id| {
            let held = scheduler.sequences().get(SequenceId(id)).unwrap();
            held.past.blocks().iter().map(|block| block.index()).collect()
        })
        .collect();
    assert_eq!(tables.iter().map(|table| table[0]).collect::<Vec<_>>(), [0, 0, 0]);
    assert_ne!(tables[1][1], tables[2][1]);
    assert_eq!(scheduler.prefix_rows(), (27, 12));
    let held = scheduler.sequences().get(SequenceId(1)).unwrap();
    assert_eq!(held.cached_tokens(), 0, "rows of P are no prompt tokens");
}

#[test]
fn text_is_shared_inside_a_tenant_and_the_last_row_is_always_computed() {
    let mut scheduler = Scheduler::new(causal(32, 4));
    scheduler.add(asks(0, None, &text(10, 9))).unwrap();
    assert_eq!(rows(&run(&mut scheduler)), [(0, 0..9)]);
    let other = NewSequence { tenant: "other".parse().unwrap(), ..asks(1, None, &text(10, 9)) };
    scheduler.add(other).unwrap();
    scheduler.add(asks(2, None, &text(10, 9))).unwrap();
    scheduler.add(asks(3, None, &text(10, 8))).unwrap();
    scheduler.add(asks(4, None, &[text(10, 4), text(50, 4)].concat())).unwrap();
    let plan = run(&mut scheduler);
    // In the order of service: the two tenants in turn.
    let mut planned = rows(&plan);
    planned.sort_by_key(|(id, _)| *id);
    assert_eq!(planned, [(0, 9..10), (1, 0..9), (2, 8..9), (3, 7..8), (4, 4..8)]);
    let cached =
        |scheduler: &mut Scheduler, id| scheduler.sequences().get(SequenceId(id)).unwrap().cached_tokens();
    assert_eq!([1, 2, 3, 4].map(|id| cached(&mut scheduler, id)), [0, 8, 7, 4]);
    assert_eq!(plan.copies.len(), 1, "of the block whose last row is computed again");
}

#[test]
fn delta_rows_move_with_the_length_so_only_equal_lengths_share_text() {
    let adapter = lease("dept", 4, Some(64));
    let mut scheduler = Scheduler::new(causal(64, 4));
    scheduler.add(asks(0, Some(&adapter), &text(10, 10))).unwrap();
    run(&mut scheduler);
    scheduler.add(asks(1, Some(&adapter), &text(10, 11))).unwrap();
    scheduler.add(asks(2, Some(&adapter), &[text(10, 8), text(70, 2)].concat())).unwrap();
    assert_eq!(rows(&run(&mut scheduler)), [(0, 14..15), (1, 4..15), (2, 12..14)]);
}

#[test]
fn an_answer_is_a_prefix_too() {
    let mut scheduler = Scheduler::new(causal(32, 4));
    scheduler.add(NewSequence { max_tokens: 6, ..asks(0, None, &text(10, 4)) }).unwrap();
    while !scheduler.sequences().is_empty() {
        run(&mut scheduler);
    }
    // The answer was 9, 9, …; its last token was chosen and never read.
    scheduler.add(asks(1, None, &[text(10, 4), vec![9; 7]].concat())).unwrap();
    assert_eq!(rows(&run(&mut scheduler)), [(1, 8..11)]);
}

#[test]
fn what_a_generation_left_is_gone_when_it_is() {
    let adapter = lease("pt", 8, None);
    let mut scheduler = Scheduler::new(causal(32, 4));
    scheduler.add(asks(0, Some(&adapter), &text(10, 3))).unwrap();
    run(&mut scheduler);
    scheduler.remove(SequenceId(0)).unwrap();
    assert_eq!((scheduler.pool.names(), used_blocks(&scheduler)), (2, 0));
    // Equal content under the same name is another generation.
    let next = lease("pt", 8, None);
    scheduler.add(asks(1, Some(&next), &text(10, 3))).unwrap();
    assert_eq!(rows(&run(&mut scheduler)), [(1, 0..11)]);
    assert_eq!(scheduler.pool.names(), 4, "the former one is still there");
    drop(adapter);
    scheduler.add(asks(2, Some(&next), &text(40, 3))).unwrap();
    assert_eq!(rows(&run(&mut scheduler)), [(1, 11..12), (2, 8..11)]);
    assert_eq!(scheduler.pool.names(), 3, "of the one that is left: P's two blocks and the first one's text");
}

#[test]
fn rows_that_are_kept_give_way_to_those_that_are_needed() {
    let mut scheduler = Scheduler::new(causal(4, 4));
    scheduler.add(asks(0, None, &text(10, 8))).unwrap();
    run(&mut scheduler);
    scheduler.remove(SequenceId(0)).unwrap();
    scheduler.add(asks(1, None, &text(50, 12))).unwrap();
    assert_eq!(rows(&run(&mut scheduler)), [(1, 0..12)]);
    scheduler.remove(SequenceId(1)).unwrap();
    // The first block of the first prompt was idle for longer than its second was, which went first.
    scheduler.add(asks(2, None, &text(10, 8))).unwrap();
    assert_eq!(rows(&run(&mut scheduler)), [(2, 4..8)]);
}

#[test]
fn a_long_prompt_comes_in_pieces_and_who_begins_like_it_waits_for_all_of_it() {
    let mut scheduler = Scheduler::new(SchedulerConfig { max_batch_tokens: 8, ..causal(64, 4) });
    scheduler.add(asks(0, None, &text(10, 20))).unwrap();
    scheduler.add(asks(1, None, &text(10, 21))).unwrap();
    scheduler.add(asks(2, None, &text(90, 2))).unwrap();
    assert_eq!(rows(&run(&mut scheduler)), [(0, 0..8)]);
    assert_eq!(rows(&run(&mut scheduler)), [(0, 8..16)]);
    assert_eq!(rows(&run(&mut scheduler)), [(0, 16..20), (2, 0..2)]);
    assert_eq!(rows(&run(&mut scheduler)), [(0, 20..21), (2, 2..3), (1, 20..21)]);
}

#[test]
fn nobody_waits_for_one_that_has_gone() {
    let mut scheduler = Scheduler::new(SchedulerConfig { max_batch_tokens: 8, ..causal(64, 4) });
    for id in 0..3 {
        scheduler.add(asks(id, None, &text(10, 20))).unwrap();
    }
    run(&mut scheduler);
    scheduler.remove(SequenceId(0)).unwrap();
    assert_eq!((scheduler.running(), scheduler.waiting()), (0, 2));
    assert_eq!(rows(&run(&mut scheduler)), [(1, 8..16)], "what the first had computed is there");
    scheduler.remove(SequenceId(2)).unwrap();
    assert_eq!((scheduler.running(), scheduler.waiting()), (1, 0));
}

#[test]
fn an_encoders_output_serves_the_very_same_prompt_only() {
    let mut scheduler = Scheduler::new(SchedulerConfig { prefix_cache: true, ..config(64, 4) });
    for (id, prompt) in [(0, text(10, 6)), (1, text(10, 6)), (2, text(10, 7))] {
        scheduler.add(NewSequence { prompt, ..request(id, 1, 4) }).unwrap();
    }
    let plan = run(&mut scheduler);
    assert_eq!((encoded(&plan), decoded(&plan)), (vec![0, 2], vec![0, 2]));
    let plan = run(&mut scheduler);
    assert_eq!((encoded(&plan), decoded(&plan)), (vec![], vec![0, 2, 1]));
    let blocks = |scheduler: &mut Scheduler, id| {
        let held = scheduler.sequences().get(SequenceId(id)).unwrap();
        (held.prompt.blocks().to_vec(), held.cached_tokens())
    };
    let (first, again) = (blocks(&mut scheduler, 0), blocks(&mut scheduler, 1));
    assert_eq!((&first.0, first.1, again.1), (&again.0, 0, 6));
    while !scheduler.sequences().is_empty() {
        run(&mut scheduler);
    }
    scheduler.add(NewSequence { prompt: text(10, 6), ..request(3, 1, 4) }).unwrap();
    assert_eq!(encoded(&run(&mut scheduler)), [0; 0], "also when nobody holds it any more");
    assert_eq!(scheduler.prefix_rows(), (25, 12));
}

/// The rows that score, by sequence, and whether the last one chooses a token.
fn scores(plan: &StepPlan) -> Vec<(u64, std::ops::Range<usize>, bool)> {
    plan.decode.iter().map(|decode| (decode.sequence.0, decode.scores.clone(), decode.samples)).collect()
}

#[test]
fn a_given_answer_is_scored_by_the_rows_in_front_of_it() {
    let adapter = lease("pt", 3, None);
    let mut scheduler = Scheduler::new(causal(32, 4));
    let given = |id, max_tokens| NewSequence {
        given: text(70, 3),
        scoring: Scoring::Given,
        max_tokens,
        ..asks(id, Some(&adapter), &text(10, 5))
    };
    scheduler.add(given(0, 0)).unwrap();
    let plan = run(&mut scheduler);
    // P and prompt are rows 0..8; row 7 scores the first token, and the last token needs no row.
    assert_eq!((rows(&plan), scores(&plan)), (vec![(0, 0..10)], vec![(0, 7..10, false)]));
    let held = scheduler.sequences().get(SequenceId(0)).unwrap();
    assert!(held.is_scored());
    assert_eq!([7, 8, 9].map(|row| held.token_behind(row)), [70, 71, 72]);
    scheduler.remove(SequenceId(0)).unwrap();
    // The prompt is there; who goes on after the given tokens computes all of them.
    scheduler.add(given(1, 2)).unwrap();
    let plan = run(&mut scheduler);
    assert_eq!((rows(&plan), scores(&plan)), (vec![(1, 7..11)], vec![(1, 7..10, true)]));
    assert_eq!(rows(&run(&mut scheduler)), [(1, 11..12)]);
    assert!(scheduler.sequences().is_empty(), "two tokens were generated");
}

#[test]
fn a_prompt_is_scored_in_pieces_and_none_of_it_twice() {
    let mut scheduler = Scheduler::new(SchedulerConfig { max_batch_tokens: 4, ..causal(6, 2) });
    scheduler.add(asks(0, None, &text(10, 3))).unwrap();
    scheduler
        .add(NewSequence { scoring: Scoring::Prompt, max_tokens: 0, ..asks(1, None, &text(10, 7)) })
        .unwrap();
    let mut scored = Vec::new();
    while !scheduler.sequences().is_empty() {
        let plan = run(&mut scheduler);
        scored.extend(scores(&plan).into_iter().filter(|(id, ..)| *id == 1).flat_map(|(_, rows, _)| rows));
        if scheduler.sequences().get(SequenceId(1)).is_some_and(Sequence::is_scored) {
            scheduler.remove(SequenceId(1));
        }
    }
    assert_eq!(scored, [0, 1, 2, 3, 4, 5], "also where it begins like another");
}
