use std::panic::resume_unwind;

use super::rig::*;
use crate::{
    domain::{Completion, FinishReason, SequenceError},
    engine::{Engine, Observer, StepReport, SubmitError},
    runner::fake::FakeRunner,
};

/// A running sequence, `bad` beside it in the next step, and a third that waits.
fn fails_its_step_only(bad: u32) {
    let (rig, gate) = Rig::start_gated(Size { max_num_seqs: 2, ..Size::default() });
    let beside = rig.submit(endless(FOREVER));
    gate.begun();
    let (failing, waiting) = (rig.submit(echo(&[bad, 4])), rig.submit(echo(&[5, 6])));
    gate.pass();
    assert_eq!(gate.begun(), [0, 1]);
    gate.pass();
    for failed in [answer(beside), answer(failing)] {
        assert_eq!(failed.end, Err(SequenceError::Internal));
    }
    assert_eq!((gate.begun(), counts(rig.handle.load())), (vec![2], (0, 1)));
    drop(gate);
    let found = answer(waiting);
    assert_eq!((found.completion().reason, found.tokens.clone()), (FinishReason::Stop, vec![5, 6]));
    let blocks: Vec<f64> = rig.steps.try_iter().map(|step| (step.kv_usage * 4096.0).round()).collect();
    assert_eq!(blocks, [2.0, 4.0, 2.0, 2.0, 2.0][..blocks.len()], "the blocks of who failed are free");
    rig.join();
}

#[test]
fn a_failed_step_fails_its_sequences_and_the_engine_goes_on() {
    fails_its_step_only(FakeRunner::FAIL_STEP);
}

#[test]
fn a_panic_in_the_runner_fails_its_step_and_the_engine_goes_on() {
    fails_its_step_only(PANIC);
}

#[test]
fn a_row_of_nan_fails_one_and_spares_its_neighbours() {
    let (rig, gate) = Rig::start_gated(Size::default());
    let first = rig.submit(endless(20));
    gate.begun();
    let (failing, last) = (rig.submit(echo(&[FakeRunner::FAIL_ROW])), rig.submit(echo(&[5, 6])));
    drop(gate);
    assert_eq!(answer(failing).end, Err(SequenceError::Internal));
    assert_eq!((answer(first).tokens.len(), answer(last).tokens), (20, vec![5, 6]));
    assert_eq!(counts(rig.handle.load()), (0, 0));
    rig.join();
}

/// Kills the engine's thread.
#[derive(Debug)]
struct Fatal;

impl Observer for Fatal {
    fn step(&self, _: &StepReport) {
        resume_unwind(Box::new("as the test wants"));
    }
    fn load(&self, _: usize, _: usize, _: f64) {}
    fn token(&self, _: bool, _: std::time::Duration) {}
    fn finished(&self, _: &Completion) {}
}

#[test]
fn a_dead_engine_leaves_nobody_without_an_end() {
    let (handle, mut parts) = parts(Size { max_num_seqs: 1, ..Size::default() });
    parts.observer = Box::new(Fatal);
    let streams = [handle.submit(endless(9)).unwrap(), handle.submit(echo(&[4])).unwrap()];
    let (runner, gate, _) = gated();
    drop(gate);
    assert!(Engine::spawn(parts, runner).unwrap().join().is_err());
    for stream in streams {
        assert_eq!(answer(stream).end, Err(SequenceError::Internal));
    }
    assert_eq!(handle.submit(echo(&[4])).unwrap_err(), SubmitError::Stopped);
}
