use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::rig::*;
use crate::{
    domain::{SequenceError, TokenEvent},
    engine::{Submission, SubmitError},
};

#[test]
fn a_full_queue_refuses_until_somebody_starts() {
    let (rig, gate) = Rig::start_gated(Size { max_num_seqs: 1, queue_limit: 2, ..Size::default() });
    let first = rig.submit(echo(&[4]));
    assert_eq!((gate.begun(), counts(rig.handle.load())), (vec![0], (0, 1)));
    let waiting = [rig.submit(echo(&[5])), rig.submit(echo(&[6]))];
    assert_eq!(counts(rig.handle.load()), (2, 1));
    let refused = rig.handle.submit(echo(&[8])).unwrap_err();
    assert_eq!(
        refused,
        SubmitError::Overloaded { waiting: 2, tokens: 2 * (1 + 100), retry_in: Duration::from_secs(1) }
    );
    assert_eq!(counts(rig.handle.load()), (2, 1), "a refusal is not counted");
    assert_eq!(rig.handle.room().unwrap_err(), refused, "and nothing has to be made ready to learn of it");
    drop(gate);
    assert_eq!(answer(first).tokens, [4]);
    assert_eq!(waiting.map(|stream| answer(stream).tokens), [[5], [6]]);
    assert_eq!(counts(rig.handle.load()), (0, 0));
    assert_eq!(rig.handle.room(), Ok(()));
    assert_eq!(answer(rig.submit(echo(&[8]))).tokens, [8]);
    rig.join();
}

#[test]
fn larger_priority_starts_earlier() {
    let (rig, gate) = Rig::start_gated(Size { max_num_seqs: 1, ..Size::default() });
    // The number of prompt tokens tells them apart.
    let submit = |length: usize, priority| rig.submit(Submission { priority, ..echo(&vec![4; length]) });
    let running = submit(1, -5);
    gate.begun();
    let rest = [submit(2, 0), submit(3, 7), submit(4, 0), submit(5, 7), submit(6, -1)];
    drop(gate);
    answer(running);
    rest.into_iter().map(answer).for_each(drop);
    let order: Vec<usize> = (0..6).map(|_| rig.finished.recv().unwrap().usage.prompt_tokens).collect();
    assert_eq!(order, [1, 3, 5, 2, 4, 6]);
    rig.join();
}

#[test]
fn what_never_fits_is_refused_by_the_handle_and_survived_by_the_engine() {
    let size = Size { num_blocks: 5, block_size: 4, ..Size::default() };
    let rig = Rig::start(size);
    let bounded = rig.handle.clone().with_pool(5, NonZeroUsize::new(4).unwrap());
    let sized = |prompt, max_tokens| Submission { max_tokens, ..echo(&vec![6; prompt]) };
    assert_eq!(answer(bounded.submit(sized(12, 8)).unwrap()).tokens.len(), 8);
    for (prompt, max_tokens, needed) in [(13, 8, 6), (12, 9, 6), (1, FOREVER, (1 << 18) + 1)] {
        let refused = bounded.submit(sized(prompt, max_tokens)).unwrap_err();
        assert_eq!(refused, SubmitError::NeverFits { needed, pool: 5 });
        let found = answer(rig.submit(sized(prompt, max_tokens)));
        assert_eq!(found.end, Err(SequenceError::Internal));
    }
    assert_eq!(counts(rig.handle.load()), (0, 0));
    drop(bounded);
    rig.join();
}

#[test]
fn a_client_that_leaves_while_it_runs_frees_its_blocks() {
    let (rig, gate) = Rig::start_gated(Size { num_blocks: 9, block_size: 4, ..Size::default() });
    // Each needs the whole pool: 1 block for the prompt and 8 for 32 tokens.
    let mut leaving = rig.submit(endless(32));
    for _ in 0..20 {
        gate.begun();
        gate.pass();
        assert!(matches!(next(&mut leaving), Some(TokenEvent::Token(_))));
    }
    assert_eq!(gate.begun(), [0]);
    let staying = rig.submit(endless(32));
    drop(leaving);
    gate.pass();
    assert_eq!(gate.begun(), [1], "the next step is without it");
    assert_eq!(counts(rig.handle.load()), (0, 1));
    drop(gate);
    assert_eq!(answer(staying).tokens.len(), 32);
    let usage: Vec<f64> = rig.steps.try_iter().map(|step| step.kv_usage * 9.0).collect();
    assert_eq!((usage[20].round(), usage[21].round()), (7.0, 2.0));
    assert_eq!(rig.finished.try_iter().count(), 1, "a cancelled sequence has not finished");
    rig.join();
}

/// Clients that hang up in the queue, in the encoder, while they generate, when they are done: nobody else notices, and an
/// idle engine holds no block, which it asserts itself.
#[test]
fn a_crowd_that_comes_and_goes_leaves_nothing_behind() {
    for seed in 0..30 {
        let mut random = SmallRng::seed_from_u64(seed);
        let size = Size {
            num_blocks: 40,
            block_size: 4,
            max_num_seqs: 5,
            queue_limit: 12,
            prefix_cache: seed % 2 == 0,
        };
        let (rig, gate) = Rig::start_gated(size);
        let mut staying = vec![(vec![8, 9], rig.submit(echo(&[8, 9])))];
        let mut leaving = Vec::new();
        for _ in 0..60 {
            let tokens: Vec<u32> = (0..random.random_range(0..30)).map(|at| 10 + at % 7).collect();
            match random.random_range(0..6) {
                0 | 1 => match rig.handle.submit(Submission { max_tokens: 40, ..echo(&tokens) }) {
                    Ok(stream) if random.random_bool(0.5) => staying.push((tokens, stream)),
                    Ok(stream) => leaving.push(stream),
                    Err(SubmitError::Empty) => assert!(tokens.is_empty()),
                    Err(error) => {
                        assert!(matches!(error, SubmitError::Overloaded { waiting: 12, .. }), "{error}")
                    }
                },
                2 if !leaving.is_empty() => drop(leaving.swap_remove(random.random_range(0..leaving.len()))),
                _ if gate.try_begun() => gate.pass(),
                _ => {}
            }
        }
        drop((gate, leaving));
        for (tokens, stream) in staying {
            assert_eq!(answer(stream).tokens, tokens);
        }
        rig.join();
    }
}

#[test]
fn a_client_that_leaves_the_queue_never_starts() {
    let (rig, gate) = Rig::start_gated(Size { max_num_seqs: 1, ..Size::default() });
    let running = rig.submit(echo(&[4]));
    gate.begun();
    drop(rig.submit(echo(&[5])));
    let last = rig.submit(echo(&[6]));
    assert_eq!(counts(rig.handle.load()), (2, 1));
    gate.pass();
    assert_eq!((gate.begun(), counts(rig.handle.load())), (vec![0], (1, 1)));
    gate.pass();
    assert_eq!((gate.begun(), counts(rig.handle.load())), (vec![2], (0, 1)));
    drop(gate);
    assert_eq!((answer(running).tokens, answer(last).tokens), (vec![4], vec![6]));
    rig.join();
}

#[test]
fn a_deadline_that_has_passed_fails_before_any_work() {
    let rig = Rig::start(Size::default());
    let late = Submission { deadline: Some(Instant::now()), ..echo(&[4]) };
    let found = answer(rig.submit(late));
    assert!(matches!(found.end, Err(SequenceError::DeadlineExceeded(_))), "{:?}", found.end);
    assert_eq!((found.tokens.len(), counts(rig.handle.load())), (0, (0, 0)));
    assert_eq!(rig.runner_steps.load(std::sync::atomic::Ordering::Acquire), 0);
    rig.join();
}

#[test]
fn a_deadline_ends_what_runs_and_what_waits_and_nothing_else() {
    let (rig, gate) = Rig::start_gated(Size { max_num_seqs: 2, ..Size::default() });
    let given = std::time::Duration::from_millis(20);
    let neighbour = rig.submit(Submission { max_tokens: 3, ..endless(3) });
    gate.begun();
    let deadline = Some(Instant::now() + given);
    let running = rig.submit(Submission { deadline, ..endless(FOREVER) });
    let waiting = rig.submit(Submission { deadline: Some(Instant::now()), ..echo(&[4]) });
    drop(gate);
    assert_eq!(answer(neighbour).tokens.len(), 3);
    let (running, waiting) = (answer(running), answer(waiting));
    assert!(matches!(running.end, Err(SequenceError::DeadlineExceeded(waited)) if waited <= given));
    assert!(Some(Instant::now()) >= deadline, "not before its time");
    assert!(matches!(waiting.end, Err(SequenceError::DeadlineExceeded(_))));
    assert!(waiting.tokens.is_empty());
    assert_eq!(counts(rig.handle.load()), (0, 0));
    rig.join();
}
