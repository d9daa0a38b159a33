use serde::{Deserialize, Serialize};

/// The two learning rates of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of P.
    pub prompt: f64,
    /// Of A and B.
    pub low_rank: f64,
}

/// Everything that a run's losses depend on, beside the model and the data. A checkpoint is resumed under equal settings only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Prompt rows m.
    pub prompt_length: usize,
    /// r; 0 is prompt tuning.
    pub rank: usize,
    /// s.
    pub max_length: usize,
    /// `lora_alpha`.
    pub alpha: f64,
    /// Highest learning rate of P.
    pub lr_prompt: f64,
    /// Highest learning rate of A and B.
    pub lr_lowrank: f64,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Steps over which the rates rise; then they fall to 0.
    pub warmup: u64,
    /// Examples a batch.
    pub batch_size: usize,
    /// Batches a step.
    pub accumulate: usize,
    /// Gradients longer than this are shortened to it; 0 leaves them.
    pub clip: f64,
    /// Of the order of examples and of what is drawn.
    pub seed: u64,
    /// An evaluation every so many steps; 0 is at the end only.
    pub eval_every: u64,
    /// A checkpoint every so many steps, beside those at evaluations.
    pub checkpoint_every: u64,
    /// Stop after so many evaluations without a better one; 0 never does.
    pub patience: u64,
    /// Where P starts, in words.
    pub init: String,
    /// The number format of the frozen weights.
    pub dtype: String,
    /// Fingerprints of model, examples and evaluation data.
    pub inputs: Vec<String>,
}

impl Settings {
    /// The rates of the step after `done` steps: linear up over the warm-up, linear down to 0, as transformers'
    /// `get_linear_schedule_with_warmup`.
    pub fn rates(&self, done: u64) -> Rates {
        let share = if done < self.warmup {
            done as f64 / self.warmup as f64
        } else {
            self.steps.saturating_sub(done) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64
        };
        Rates { prompt: self.lr_prompt * share, low_rank: self.lr_lowrank * share }
    }

    /// The settings that differ, as `name: ours, theirs`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let fields = |settings: &Self| match serde_json::to_value(settings) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (fields(self), fields(other));
        let differ = ours.iter().filter(|(name, value)| theirs.get(*name) != Some(value));
        differ
            .map(|(name, value)| {
                format!("{name} ({} then, {value} now)", theirs.get(name).unwrap_or(&serde_json::Value::Null))
            })
            .collect()
    }
}
