//! Whole runs on the tiny T5.

use super::{pieces::settings, support::tiny};
use crate::{
    adapter::{Card, LoadedAdapter, card::Measurement, folder},
    training::{
        AdapterShape, Judge, Kept, Observer, Outcome, Output, Parameters, Progress, Run, Settings, Tensors,
        Tokenised, TrainError, Verdict, read_journal,
    },
};

/// Keeps the losses.
#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn stepped(&mut self, progress: &Progress) {
        self.0.push(progress.loss);
    }

    fn evaluated(&mut self, _step: u64, _verdict: &Verdict, _best: bool) {}
}

/// Gives values in turn.
struct Script(Vec<f64>);

impl Judge for Script {
    fn judge(&mut self, _adapter: LoadedAdapter) -> Result<Verdict, String> {
        if self.0.is_empty() {
            return Err("no more".to_owned());
        }
        let value = self.0.remove(0);
        let measurement = Measurement {
            dataset: "d".to_owned(),
            split: None,
            metric: "accuracy".to_owned(),
            value,
            interval_95: None,
            n: 1,
            auc: None,
            majority: None,
            zero_shot: None,
            zero_shot_auc: None,
            command: None,
        };
        Ok(Verdict { value, measurement })
    }
}

struct Rig {
    folder: tempfile::TempDir,
    backbone: crate::training::Backbone,
    examples: Vec<Tokenised>,
}

impl Rig {
    fn new() -> Self {
        Self::on("t5-v1_1")
    }

    fn on(model: &str) -> Self {
        let example = |at: u32| {
            let source = (0..3 + at % 5).map(|i| 5 + (at * 7 + i * 3) % 90).chain([1]).collect();
            Tokenised { source, target: vec![20 + at % 2, 1] }
        };
        let examples = (0..12).map(example).collect();
        Self { folder: tempfile::tempdir().unwrap(), backbone: tiny(model), examples }
    }

    fn open(&self, settings: Settings, restart: bool) -> Result<Run<'_>, TrainError> {
        let shape = AdapterShape {
            prompt_length: settings.prompt_length,
            rank: settings.rank,
            max_length: settings.max_length,
            hidden: self.backbone.hidden(),
            alpha: settings.alpha,
        };
        let mut values = Tensors::zeros(&shape);
        let all = values.prompt.iter_mut().chain(&mut values.a);
        all.enumerate().for_each(|(at, value)| *value = ((at * 37 % 101) as f32 - 50.0) / 60.0);
        let output = Output {
            folder: self.folder.path().to_owned(),
            task: self.backbone.task(),
            base_model: "tiny".to_owned(),
            layers_and_heads: self.backbone.layers_and_heads(),
            init_text: None,
        };
        let parameters = Parameters { shape, values };
        Run::open((&self.backbone, &self.examples), (output, Card::default()), parameters, settings, restart)
    }

    fn finish(&self, settings: Settings, judge: &mut Script) -> (Result<Outcome, TrainError>, Vec<f64>) {
        let mut losses = Losses::default();
        let outcome = self.open(settings, false).unwrap().finish(Some(judge), &mut losses);
        (outcome, losses.0)
    }
}

fn short() -> Settings {
    Settings { max_length: 8, steps: 12, warmup: 2, eval_every: 4, ..settings() }
}

#[test]
fn every_method_trains_in_front_of_both_families() {
    for model in ["t5-v1_1", "llama"] {
        for (prompt_length, rank) in [(5, 4), (5, 0), (0, 4)] {
            let rig = Rig::on(model);
            let settings =
                Settings { prompt_length, rank, steps: 40, eval_every: 20, lr_lowrank: 0.05, ..short() };
            let (outcome, losses) = rig.finish(settings, &mut Script(vec![0.5, 0.75]));
            assert_eq!(outcome.unwrap().best, Some((40, 0.75)));
            let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
            let (first, last) = (mean(&losses[..6]), mean(&losses[30..]));
            assert!(last < 0.9 * first, "{model}, m = {prompt_length}, r = {rank}: {first} to {last}");
            let weights = folder::load(rig.folder.path()).unwrap().weights;
            assert_eq!((weights.prompt_length(), weights.rank()), (prompt_length, rank));
        }
    }
}

#[test]
fn losses_fall_and_the_best_adapter_is_kept() {
    let rig = Rig::new();
    let settings = Settings { steps: 60, eval_every: 20, lr_lowrank: 0.05, ..short() };
    let (outcome, losses) = rig.finish(settings, &mut Script(vec![0.5, 0.75, 0.25]));
    let outcome = outcome.unwrap();
    assert_eq!((outcome.steps, outcome.best, outcome.stopped_early), (60, Some((40, 0.75)), false));
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[50..]) < 0.65 * mean(&losses[..6]), "{losses:?}");
    let card = folder::load(rig.folder.path()).unwrap().card;
    assert_eq!(card.results[0].value, 0.75);
    assert_eq!(card.training.unwrap().steps, Some(40));
}

#[test]
fn a_run_that_broke_off_goes_on_to_the_same_bits() {
    let (whole, broken) = (Rig::new(), Rig::new());
    let (_, expected) = whole.finish(short(), &mut Script(vec![0.1, 0.2, 0.3]));
    // The second evaluation fails: step 8 was done and is not in the checkpoint of step 6.
    let (outcome, first) = broken.finish(short(), &mut Script(vec![0.1]));
    assert!(outcome.unwrap_err().to_string().contains("no more"));
    assert_eq!(broken.open(short(), false).unwrap().done(), 6);
    let (outcome, second) = broken.finish(short(), &mut Script(vec![0.2, 0.3]));
    assert_eq!(outcome.unwrap().best, Some((12, 0.3)));
    assert_eq!([&first[..6], &second[..]].concat(), expected);
    let journal = |rig: &Rig| {
        let entries = read_journal(&rig.folder.path().join("training/log.jsonl")).unwrap();
        entries.into_iter().map(|entry| (entry.step, entry.loss, entry.value)).collect::<Vec<_>>()
    };
    assert_eq!(journal(&whole), journal(&broken));
    let weights = |rig: &Rig| folder::load(rig.folder.path()).unwrap().weights;
    assert_eq!(weights(&whole), weights(&broken));
}

#[test]
fn batches_together_are_one_batch() {
    let (one, two) = (Rig::new(), Rig::new());
    let run = |rig: &Rig, batch_size, accumulate| {
        rig.finish(Settings { batch_size, accumulate, ..short() }, &mut Script(vec![0.0; 3])).1
    };
    for (a, b) in run(&one, 4, 1).iter().zip(run(&two, 2, 2)) {
        assert!((a - b).abs() < 2e-4 * a, "{a} {b}");
    }
}

#[test]
fn it_stops_when_nothing_gets_better() {
    let rig = Rig::new();
    let settings = Settings { steps: 40, patience: 2, ..short() };
    let (outcome, losses) = rig.finish(settings, &mut Script(vec![0.5, 0.4, 0.5]));
    let outcome = outcome.unwrap();
    assert_eq!((outcome.steps, outcome.best, outcome.stopped_early), (12, Some((4, 0.5)), true));
    assert_eq!(losses.len(), 12);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_costs_nothing() {
    // The first step of a warm-up has no rate; what the second makes of B has products with A beyond all numbers.
    let settings = || Settings {
        alpha: 8e3,
        lr_lowrank: 1e36,
        steps: 40,
        checkpoint_every: 1,
        eval_every: 1,
        ..short()
    };
    let broken = |outcome: Result<Outcome, TrainError>| match outcome.unwrap_err() {
        TrainError::NotFinite { step, what, kept, .. } => (step, what, kept.step),
        other => panic!("{other}"),
    };
    let is_sound = |rig: &Rig| {
        let weights = folder::load(rig.folder.path()).unwrap().weights;
        weights.update().matrices().iter().all(|matrix| matrix.data().iter().all(|value| value.abs() < 10.0))
    };
    // Nobody judges: each step's adapter is kept once the next loss is some.
    let rig = Rig::new();
    let run = rig.open(settings(), false).unwrap();
    assert_eq!(broken(run.finish(None, &mut Losses::default())), (3, "loss", Some(1)));
    assert!(is_sound(&rig), "the adapter of the first step");
    let again = rig.open(settings(), false).unwrap();
    assert_eq!(again.done(), 1, "the checkpoint is that of the first step too");
    assert_eq!(broken(again.finish(None, &mut Losses::default())).0, 3);
    // A judge's best stays.
    let rig = Rig::new();
    let (outcome, _) = rig.finish(settings(), &mut Script(vec![0.5; 10]));
    assert_eq!(broken(outcome), (3, "loss", Some(1)));
    assert!(is_sound(&rig));
    // Nor is one judged that gives no loss.
    let rig = Rig::new();
    let judged = Settings { eval_every: 2, checkpoint_every: 0, ..settings() };
    let (outcome, _) = rig.finish(judged, &mut Script(vec![0.5; 10]));
    assert_eq!(broken(outcome), (3, "loss", None));
    assert!(folder::load(rig.folder.path()).is_err(), "nothing was kept");
    // What a step makes may itself be no number.
    let rig = Rig::new();
    let (outcome, _) = rig.finish(Settings { lr_prompt: 1e39, ..settings() }, &mut Script(vec![0.5; 10]));
    assert_eq!(broken(outcome), (2, "adapter", Some(1)));
    assert!(is_sound(&rig));
}

#[test]
fn what_a_broken_run_has_left_is_told() {
    let error = |step| TrainError::NotFinite {
        step: 3,
        what: "loss",
        value: f64::NAN,
        kept: Kept { out: "out".into(), step },
    };
    assert_eq!(
        error(Some(1)).to_string(),
        "step 3: the loss is NaN, so what gave it is not kept; 'out' holds the adapter of step 1. Lower \
         --lr-prompt or --lr-lowrank and add --restart"
    );
    assert!(error(None).to_string().contains("no adapter has been written to 'out' since this start"));
}

#[test]
fn what_the_last_step_left_is_looked_at_too() {
    let rig = Rig::new();
    let settings = Settings { alpha: 8e3, lr_lowrank: 1e36, steps: 2, warmup: 1, ..short() };
    let outcome = rig.open(settings, false).unwrap().finish(None, &mut Losses::default());
    assert!(matches!(outcome, Err(TrainError::NotFinite { step: 3, .. })), "{outcome:?}");
    assert!(folder::load(rig.folder.path()).is_err(), "no adapter was kept");
}

#[test]
fn another_run_is_not_overwritten_unless_asked() {
    let rig = Rig::new();
    rig.finish(short(), &mut Script(vec![0.0; 3])).0.unwrap();
    let other = Settings { seed: 9, ..short() };
    let error = rig.open(other.clone(), false).err().unwrap().to_string();
    assert!(error.contains("seed (3 then, 9 now)") && error.contains("--restart"), "{error}");
    assert_eq!(rig.open(other, true).unwrap().done(), 0);
}
