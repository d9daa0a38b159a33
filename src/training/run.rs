//! The loop: batches, gradients, steps, evaluations, checkpoints.

use std::time::{Instant, SystemTime};

use super::{
    adamw::Optimiser,
    backbone::Backbone,
    checkpoint::{Best, Checkpoint, State},
    error::{Kept, TrainError},
    journal::{Entry, Journal},
    order::Order,
    output::Output,
    parameters::{Gradients, Parameters, Tensors},
    settings::Settings,
};
use crate::{
    adapter::{
        Card, LoadedAdapter,
        card::{Measurement, Trained},
    },
    backbones::TextPair,
    domain::UtcTime,
};

/// An example as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenised {
    /// What the model reads.
    pub source: Vec<u32>,
    /// What it should answer, the end token included.
    pub target: Vec<u32>,
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What is compared; larger is better.
    pub value: f64,
    /// For the card.
    pub measurement: Measurement,
}

/// Says how good an adapter is.
pub trait Judge {
    /// Evaluates it.
    ///
    /// # Errors
    /// In words, when that fails.
    fn judge(&mut self, adapter: LoadedAdapter) -> Result<Verdict, String>;
}

/// A step that was done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The step, from 1.
    pub step: u64,
    /// Of so many.
    pub steps: u64,
    /// Mean loss a target token.
    pub loss: f64,
    /// Source and target tokens.
    pub tokens: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Is told what happens.
pub trait Observer {
    /// After every step.
    fn stepped(&mut self, progress: &Progress);
    /// After every evaluation.
    fn evaluated(&mut self, step: u64, verdict: &Verdict, best: bool);
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps done, all sittings together.
    pub steps: u64,
    /// The best evaluation, as (step, value).
    pub best: Option<(u64, f64)>,
    /// Seconds of training, all sittings together.
    pub seconds: f64,
    /// Whether it ended before its last step, as nothing got better.
    pub stopped_early: bool,
}

/// A run, ready to go on.
pub struct Run<'a> {
    /// The frozen model.
    pub backbone: &'a Backbone,
    /// The training examples. Not empty.
    pub examples: &'a [Tokenised],
    /// Where the best adapter goes.
    pub output: Output,
    /// The card without results; of its training the command alone.
    pub card: Card,
    parameters: Parameters,
    optimiser: Optimiser,
    state: State,
    /// Of the next step, where they were wanted before it.
    ahead: Option<Batch>,
    /// The step whose adapter this sitting, or one before it, has kept.
    kept: Option<u64>,
}

/// What the examples of a step say of the adapter as it is.
struct Batch {
    /// Mean loss a target token.
    loss: f64,
    gradients: Gradients,
    /// The gradients' length.
    norm: f64,
    tokens: u64,
    /// To compute it.
    seconds: f64,
}

impl<'a> Run<'a> {
    /// A run that begins with `parameters`, or goes on from the checkpoint in the output folder, unless `restart`.
    ///
    /// # Errors
    /// When the folder can't be made, or holds a run with other settings.
    pub fn open(
        (backbone, examples): (&'a Backbone, &'a [Tokenised]),
        (output, card): (Output, Card),
        parameters: Parameters,
        settings: Settings,
        restart: bool,
    ) -> Result<Self, TrainError> {
        output.create()?;
        let path = output.run_folder().join("checkpoint.safetensors");
        let found = if restart { None } else { Checkpoint::load(&path, parameters.shape.hidden)? };
        let (values, optimiser, state) = match found {
            None => {
                let optimiser = Optimiser::new(&parameters.values);
                let state = State { settings, step: 0, best: None, since_best: 0, seconds: 0.0 };
                (parameters.values, optimiser, state)
            }
            Some(Checkpoint { state, values, optimiser }) => {
                let differences = settings.differences(&state.settings);
                if !differences.is_empty() {
                    let differences = differences.join(", ");
                    return Err(TrainError::OtherRun { out: output.folder, differences });
                }
                (values, optimiser, state)
            }
        };
        let parameters = Parameters { shape: parameters.shape, values };
        let kept = state.best.map(|best| best.step);
        Ok(Self { backbone, examples, output, card, parameters, optimiser, state, ahead: None, kept })
    }

    /// Steps done in earlier sittings.
    pub fn done(&self) -> u64 {
        self.state.step
    }

    /// Trains to the end.
    ///
    /// # Errors
    /// When a loss is no number, a file can't be written or the evaluation fails; the last checkpoint and the best adapter
    /// stay, and of neither has a loss been no number.
    pub fn finish(
        mut self,
        mut judge: Option<&mut dyn Judge>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        let mut journal = Journal::open(&self.output.run_folder(), self.state.step)?;
        let mut order = Order::new(self.examples.len(), self.state.settings.seed);
        let steps = self.state.settings.steps;
        while self.state.step < steps && !self.is_stale() {
            let entry = self.step(&mut order, observer)?;
            journal.write(&entry)?;
            let step = self.state.step;
            let evaluated = step == steps || is_due(step, self.state.settings.eval_every);
            if !evaluated && !is_due(step, self.state.settings.checkpoint_every) {
                continue;
            }
            // What is kept has been seen to give a loss.
            self.ahead = Some(self.batch(&mut order)?);
            match &mut judge {
                Some(judge) if evaluated => self.evaluate(&mut **judge, observer, &mut journal)?,
                None if evaluated => self.keep(Vec::new())?,
                _ => {}
            }
            self.save()?;
        }
        Ok(Outcome {
            steps: self.state.step,
            best: self.state.best.map(|best| (best.step, best.value)),
            seconds: self.state.seconds,
            stopped_early: self.state.step < steps,
        })
    }

    /// Whether nothing got better for too long.
    fn is_stale(&self) -> bool {
        let patience = self.state.settings.patience;
        patience > 0 && self.state.since_best >= patience
    }

    fn step(&mut self, order: &mut Order, observer: &mut dyn Observer) -> Result<Entry, TrainError> {
        let (step, rates) = (self.state.step + 1, self.state.settings.rates(self.state.step));
        let batch = match self.ahead.take() {
            Some(batch) => batch,
            None => self.batch(order)?,
        };
        let Batch { loss, mut gradients, norm, tokens, seconds } = batch;
        let began = Instant::now();
        let clip = self.state.settings.clip;
        if clip > 0.0 {
            gradients.scale((clip / (norm + 1e-6)).min(1.0) as f32);
        }
        self.optimiser.step(&mut self.parameters.values, &gradients, rates);
        let made = self.parameters.values.named();
        let numbers = made.iter().flat_map(|(_, values)| values.iter());
        self.check(numbers.map(|&value| ("adapter", f64::from(value))))?;
        self.state.step = step;
        let seconds = seconds + began.elapsed().as_secs_f64();
        self.state.seconds += seconds;
        observer.stepped(&Progress { step, steps: self.state.settings.steps, loss, tokens, seconds });
        Ok(Entry {
            step,
            loss: Some(loss),
            lr_prompt: Some(rates.prompt),
            lr_lowrank: Some(rates.low_rank),
            gradient_norm: Some(norm),
            tokens: Some(tokens),
            seconds: Some(seconds),
            ..Entry::default()
        })
    }

    /// What the next step's examples say of the adapter as it is.
    fn batch(&self, order: &mut Order) -> Result<Batch, TrainError> {
        let began = Instant::now();
        let (loss, gradients, tokens) = self.gradients(order)?;
        let norm = gradients.norm();
        self.check([("loss", loss), ("gradient", norm)])?;
        Ok(Batch { loss, gradients, norm, tokens, seconds: began.elapsed().as_secs_f64() })
    }

    /// Checks that numbers of the next step are some, each with what it is.
    fn check(&self, numbers: impl IntoIterator<Item = (&'static str, f64)>) -> Result<(), TrainError> {
        match numbers.into_iter().find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((what, value)) => {
                let kept = Kept { out: self.output.folder.clone(), step: self.kept };
                Err(TrainError::NotFinite { step: self.state.step + 1, what, value, kept })
            }
        }
    }

    /// Mean loss and gradients over all batches of a step, every target token with the same weight; and its tokens.
    fn gradients(&self, order: &mut Order) -> Result<(f64, Gradients, u64), TrainError> {
        let Settings { batch_size, accumulate, .. } = self.state.settings;
        let first = self.state.step * (batch_size * accumulate) as u64;
        let picked: Vec<&Tokenised> = (first..first + (batch_size * accumulate) as u64)
            .map(|place| &self.examples[order.at(place)])
            .collect();
        let targets: usize = picked.iter().map(|one| one.target.len()).sum();
        let tokens = targets + picked.iter().map(|one| one.source.len()).sum::<usize>();
        let (mut loss, mut sum) = (0.0, Tensors::zeros(&self.parameters.shape));
        for batch in picked.chunks(batch_size) {
            let pairs: Vec<TextPair<'_>> =
                batch.iter().map(|one| TextPair { source: &one.source, target: &one.target }).collect();
            let (part, gradients) =
                self.backbone.gradients(&self.parameters, &pairs, 1.0 / targets as f32)?;
            loss += f64::from(part);
            sum.add(&gradients);
        }
        Ok((loss, sum, tokens as u64))
    }

    /// Keeps the adapter if it is the best so far.
    fn evaluate(
        &mut self,
        judge: &mut dyn Judge,
        observer: &mut dyn Observer,
        journal: &mut Journal,
    ) -> Result<(), TrainError> {
        let adapter = self.output.adapter(&self.parameters, &self.card)?;
        let verdict = judge.judge(adapter).map_err(TrainError::Judge)?;
        let better = self.state.best.is_none_or(|best| verdict.value > best.value);
        let step = self.state.step;
        if better {
            self.keep(vec![verdict.measurement.clone()])?;
            self.state.best = Some(Best { step, value: verdict.value });
        }
        self.state.since_best = if better { 0 } else { self.state.since_best + 1 };
        observer.evaluated(step, &verdict, better);
        journal.write(&Entry {
            step,
            metric: Some(verdict.measurement.metric.clone()),
            value: Some(verdict.value),
            best: Some(better),
            ..Entry::default()
        })
    }

    /// Writes the adapter as it is now, with what was measured of it.
    fn keep(&mut self, results: Vec<Measurement>) -> Result<(), TrainError> {
        self.output.save(&self.parameters, &self.card_with(results))?;
        self.kept = Some(self.state.step);
        Ok(())
    }

    /// The card of the adapter as it is now.
    fn card_with(&self, results: Vec<Measurement>) -> Card {
        let UtcTime { year, month, day, .. } = SystemTime::now().into();
        let training = Trained {
            command: self.card.training.as_ref().and_then(|training| training.command.clone()),
            steps: Some(self.state.step),
            minutes: Some((self.state.seconds / 6.0).round() / 10.0),
            date: Some(format!("{year:04}-{month:02}-{day:02}")),
        };
        Card { training: Some(training), results, ..self.card.clone() }
    }

    fn save(&self) -> Result<(), TrainError> {
        let checkpoint = Checkpoint {
            state: self.state.clone(),
            values: self.parameters.values.clone(),
            optimiser: self.optimiser.clone(),
        };
        checkpoint.save(&self.output.run_folder().join("checkpoint.safetensors"))
    }
}

/// Whether something that is done every so many steps is due; 0 is never.
fn is_due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}
