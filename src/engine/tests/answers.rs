use std::{path::Path, sync::Arc, thread, time::Instant};

use super::rig::*;
use crate::{
    adapter::{AdapterLease, folder},
    domain::{FinishReason, Usage},
    engine::Submission,
    runner::fake::FakeRunner,
};

const TEXT: &str = "the film is no road";

#[test]
fn tokens_come_in_order_and_their_texts_joined_are_the_text() {
    let rig = Rig::start(Size::default());
    let began = Instant::now();
    let submission = echo_text(TEXT);
    let prompt = submission.tokens.clone();
    let found = answer(rig.submit(submission));
    assert_eq!(found.tokens, prompt[..prompt.len() - 1], "the end token is not text");
    assert_eq!((found.text().as_str(), found.completion().reason), (TEXT, FinishReason::Stop));
    let usage = Usage {
        prompt_tokens: prompt.len(),
        virtual_tokens: 0,
        completion_tokens: prompt.len() - 1,
        cached_tokens: 0,
    };
    assert_eq!(found.completion().usage, usage);
    assert!(found.completion().timings.total() <= began.elapsed());
    rig.join();
}

#[test]
fn an_answer_may_be_empty() {
    let rig = Rig::start(Size::default());
    let found = answer(rig.submit(echo(&[FakeRunner::EOS])));
    assert_eq!((found.tokens.len(), found.text().as_str()), (0, ""));
    assert_eq!(
        (found.completion().reason, found.completion().usage.completion_tokens),
        (FinishReason::Stop, 0)
    );
    rig.join();
}

#[test]
fn max_tokens_ends_with_length() {
    let rig = Rig::start(Size::default());
    let submission = Submission { max_tokens: 2, ..echo_text(TEXT) };
    let expected = submission.tokens[..2].to_vec();
    let found = answer(rig.submit(submission));
    assert_eq!(found.tokens, expected);
    assert_eq!(found.text(), tokenizer().decode(&expected));
    assert_eq!(
        (found.completion().reason, found.completion().usage.completion_tokens),
        (FinishReason::Length, 2)
    );
    rig.join();
}

#[test]
fn the_end_token_does_not_come_before_min_tokens() {
    let rig = Rig::start(Size::default());
    let short = echo(&[4, FakeRunner::EOS]);
    for (min_tokens, fillers) in [(0, 0), (1, 0), (2, 1), (4, 3)] {
        let found = answer(rig.submit(Submission { min_tokens, ..short.clone() }));
        let expected: Vec<u32> = [4].into_iter().chain(vec![FakeRunner::FILLER; fillers]).collect();
        assert_eq!((found.tokens.clone(), found.completion().reason), (expected, FinishReason::Stop));
    }
    rig.join();
}

#[test]
fn a_stop_string_ends_the_text_in_front_of_it() {
    let rig = Rig::start(Size::default());
    for (stop, text) in [("m is", "the fil"), ("the", ""), ("road", "the film is no "), (" film", "the")] {
        let stopping = Submission { stop: vec!["never".to_owned(), stop.to_owned()], ..echo_text(TEXT) };
        let found = answer(rig.submit(stopping));
        assert_eq!((found.text().as_str(), found.completion().reason), (text, FinishReason::StopSequence));
        assert_eq!(found.completion().usage.completion_tokens, found.tokens.len());
        assert_eq!(found.completion().tail, "", "all text before a stop came with its tokens");
    }
    // The token behind the match is not waited for.
    let found = answer(rig.submit(Submission { stop: vec!["eee".to_owned()], ..endless(FOREVER) }));
    assert_eq!((found.tokens.len(), found.text().as_str()), (3, ""));
    rig.join();
}

#[test]
fn text_held_back_for_a_stop_string_that_does_not_come_is_released_at_the_end() {
    let rig = Rig::start(Size::default());
    let found = answer(rig.submit(Submission { stop: vec!["eeex".to_owned()], ..endless(5) }));
    assert_eq!((found.pieces.concat().as_str(), found.completion().tail.as_str()), ("ee", "eee"));
    assert_eq!(found.completion().reason, FinishReason::Length);
    let found = answer(rig.submit(Submission { stop: vec!["roads".to_owned()], ..echo_text(TEXT) }));
    assert_eq!((found.text().as_str(), found.completion().reason), (TEXT, FinishReason::Stop));
    rig.join();
}

#[test]
fn virtual_tokens_are_counted_apart_and_the_lease_ends_with_the_sequence() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/adapters/t5-v1_1/dept");
    let generation = Arc::new(folder::load(&path).unwrap().into_generation("golden".parse().unwrap()));
    let lease = AdapterLease::new(Arc::clone(&generation));
    let rig = Rig::start(Size::default());
    let found = answer(rig.submit(Submission { adapter: Some(lease), ..echo(&[4, 5]) }));
    let usage = found.completion().usage;
    assert_eq!((usage.prompt_tokens, usage.virtual_tokens), (2, generation.weights().prompt_length()));
    assert_eq!(Arc::strong_count(&generation), 1, "nobody holds the generation any more");
    rig.join();
}

/// Threads that submit, read and leave, over a pool that preempts: neighbours change no answer.
#[test]
fn answers_do_not_depend_on_neighbours() {
    let rig = Rig::start(Size { num_blocks: 40, block_size: 2, max_num_seqs: 6, ..Size::default() });
    thread::scope(|scope| {
        for client in 0..4_u32 {
            let handle = &rig.handle;
            scope.spawn(move || {
                let prompt = |index: u32| -> Vec<u32> {
                    (0..1 + (index * 7 + client) % 20).map(|at| 8 + (at * 3 + index + client) % 40).collect()
                };
                let streams: Vec<_> = (0..25)
                    .map(|index| {
                        let submission = Submission { max_tokens: 22, ..echo(&prompt(index)) };
                        (index, handle.submit(submission).unwrap())
                    })
                    .collect();
                for (index, stream) in streams {
                    if index % 5 == 4 {
                        continue;
                    }
                    let found = answer(stream);
                    assert_eq!(found.tokens, prompt(index));
                    assert_eq!(found.text(), tokenizer().decode(&prompt(index)));
                    assert_eq!(found.completion().reason, FinishReason::Stop);
                }
            });
        }
    });
    rig.join();
}
