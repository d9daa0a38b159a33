//! How an engine ends.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::rig::*;
use crate::{
    domain::{FinishReason, SequenceError},
    engine::{Engine, SubmitError},
};

/// A deadline that no test reaches.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[test]
fn a_drain_finishes_what_it_has_and_refuses_what_is_new() {
    let (rig, gate) = Rig::start_gated(Size { max_num_seqs: 1, ..Size::default() });
    let running = rig.submit(endless(9));
    gate.begun();
    let waiting = rig.submit(echo(&[4, 5]));
    rig.handle.drain(far());
    assert_eq!(rig.handle.submit(echo(&[6])).unwrap_err(), SubmitError::Draining);
    drop(gate);
    assert_eq!(answer(running).completion().reason, FinishReason::Length);
    assert_eq!(answer(waiting).tokens, [4, 5]);
    let handle = rig.handle.clone();
    rig.join();
    assert_eq!(handle.submit(echo(&[6])).unwrap_err(), SubmitError::Draining);
    handle.drain(far());
}

#[test]
fn a_drain_without_work_ends_at_once() {
    let rig = Rig::start(Size::default());
    rig.handle.drain(far());
    rig.join();
}

#[test]
fn a_drain_fails_what_is_left_at_its_deadline() {
    let (rig, gate) = Rig::start_gated(Size { max_num_seqs: 1, ..Size::default() });
    let running = rig.submit(endless(FOREVER));
    gate.begun();
    let waiting = rig.submit(echo(&[4]));
    rig.handle.drain(Instant::now() + Duration::from_millis(20));
    drop(gate);
    let (running, waiting) = (answer(running), answer(waiting));
    assert_eq!((running.end, waiting.end), (Err(SequenceError::Draining), Err(SequenceError::Draining)));
    assert!(!running.tokens.is_empty() && waiting.tokens.is_empty());
    rig.join();
}

#[test]
fn a_second_drain_may_shorten_the_first() {
    let (rig, gate) = Rig::start_gated(Size::default());
    let running = rig.submit(endless(FOREVER));
    gate.begun();
    rig.handle.drain(far());
    rig.handle.drain(Instant::now());
    drop(gate);
    assert_eq!(answer(running).end, Err(SequenceError::Draining));
    rig.join();
}

/// A submission that looks before the drain begins and is sent after the engine has heard of it.
#[test]
fn a_submission_that_races_a_drain_gets_an_end() {
    let (handle, parts) = parts(Size::default());
    let draining = &handle.load().draining;
    handle.drain(far());
    draining.store(false, Ordering::Release);
    let behind = handle.submit(echo(&[4])).unwrap();
    draining.store(true, Ordering::Release);
    let (runner, gate, _) = gated();
    drop(gate);
    Engine::spawn(parts, runner).unwrap().join().unwrap();
    assert_eq!(answer(behind).end, Err(SequenceError::Draining));
    draining.store(false, Ordering::Release);
    assert_eq!(handle.submit(echo(&[4])).unwrap_err(), SubmitError::Stopped);
}

#[test]
fn an_engine_without_handles_ends_after_its_last_sequence() {
    let (rig, gate) = Rig::start_gated(Size { max_num_seqs: 1, ..Size::default() });
    let (running, waiting) = (rig.submit(endless(9)), rig.submit(echo(&[4, 5])));
    gate.begun();
    let Rig { handle, thread, .. } = rig;
    drop(handle.clone());
    drop(handle);
    drop(gate);
    assert_eq!((answer(running).tokens.len(), answer(waiting).tokens), (9, vec![4, 5]));
    thread.join().unwrap();
}
