use std::collections::HashMap;

use crate::domain::SamplingParams;

/// The tokens of a sequence so far, and what having seen them costs.
#[derive(Debug, Clone)]
pub(super) struct Penalties {
    repetition: f64,
    presence: f64,
    frequency: f64,
    /// How often each token was generated; 0 for one that is only in the prompt.
    seen: HashMap<u32, u32>,
}

impl Penalties {
    /// `None` where no penalty is asked for.
    pub(super) fn new(params: &SamplingParams, prompt_tokens: &[u32]) -> Option<Self> {
        let (repetition, presence, frequency) =
            (params.repetition_penalty, params.presence_penalty, params.frequency_penalty);
        if repetition == 1.0 && presence == 0.0 && frequency == 0.0 {
            return None;
        }
        let seen = prompt_tokens.iter().map(|&token| (token, 0)).collect();
        Some(Self { repetition, presence, frequency, seen })
    }

    /// Changes the logits of the tokens seen: the repetition penalty scales those of prompt and output, then
    /// presence and frequency are subtracted from those of the output.
    pub(super) fn apply(&self, row: &mut [f32]) {
        for (&token, &times) in &self.seen {
            // An id outside the vocabulary has no logit; one that is not finite is masked, or is refused later.
            let Some(logit) = row.get_mut(token as usize).filter(|logit| logit.is_finite()) else { continue };
            let x = f64::from(*logit);
            let scaled = if x < 0.0 { x * self.repetition } else { x / self.repetition };
            let subtracted = if times > 0 { self.presence + self.frequency * f64::from(times) } else { 0.0 };
            // A legal penalty can't make a logit infinite.
            *logit = (scaled - subtracted).clamp(f32::MIN.into(), f32::MAX.into()) as f32;
        }
    }

    /// Notes that `token` was generated.
    pub(super) fn count(&mut self, token: u32) {
        *self.seen.entry(token).or_insert(0) += 1;
    }
}
