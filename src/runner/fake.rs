//! A runner without a model, for tests of everything above it.

use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering};

use super::{Runner, StepError, StepOutput};
use crate::{
    domain::GivenToken,
    grammar::Guide,
    sampling::{SampleError, Sampled},
    scheduler::{Sequences, StepPlan},
};

/// Answers a prompt with its own tokens in order and then [`FakeRunner::EOS`], or [`FakeRunner::FILLER`] where the end may
/// not come yet, as far as its grammar allows; checks what a real runner would rely on.
#[derive(Debug, Default)]
pub struct FakeRunner {
    /// Steps taken so far.
    pub steps: Arc<AtomicUsize>,
}

impl FakeRunner {
    /// The end token.
    pub const EOS: u32 = 1;
    /// What comes where the end token is banned.
    pub const FILLER: u32 = 7;
    /// A prompt that begins with it fails its whole step.
    pub const FAIL_STEP: u32 = 90;
    /// A prompt that begins with it gets a row of NaN.
    pub const FAIL_ROW: u32 = 91;
    /// A prompt that begins with it is answered with [`FakeRunner::FILLER`] for ever.
    pub const ENDLESS: u32 = 92;
}

impl Runner for FakeRunner {
    fn step(
        &mut self,
        plan: &StepPlan,
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        self.steps.fetch_add(1, Ordering::AcqRel);
        for planned in &plan.decode {
            let sequence = sequences.get(planned.sequence).expect("a plan names live sequences");
            assert!(sequence.encoded, "a sequence is decoded after its prompt is encoded");
            assert_eq!(sequence.prompt.len(), sequence.prompt_rows());
            assert_eq!(planned.rows, sequence.computed..sequence.decoder_rows());
            assert_eq!(sequence.past.len(), planned.rows.end);
            for row in planned.scores.clone() {
                let id = sequence.token_behind(row);
                let given = GivenToken { id, logprob: -(id as f32), top: Vec::new() };
                output.scores.push((planned.sequence, Ok(given)));
            }
            if !planned.samples {
                continue;
            }
            let sampled = match sequence.request.prompt[0] {
                Self::FAIL_STEP => {
                    return Err(StepError::Decode(candle_core::Error::msg("as the test wants").into()));
                }
                Self::FAIL_ROW => Err(SampleError::NotFinite { token: 0 }),
                Self::ENDLESS => Ok(Self::FILLER),
                _ => match sequence.request.prompt.get(sequence.generated()) {
                    Some(&token) if token != Self::EOS => Ok(token),
                    _ if sequence.must_go_on() => Ok(Self::FILLER),
                    _ => Ok(Self::EOS),
                },
            };
            let sampled = sampled.and_then(|token| {
                let sequence = sequences.get_mut(planned.sequence).expect("it is live");
                sequence.request.guide.as_mut().map_or(Ok(token), |guide| nearest(guide, token))
            });
            let sampled = sampled.map(|token| Sampled { token, logprob: None, top: Vec::new() });
            output.tokens.push((planned.sequence, sampled));
        }
        Ok(())
    }
}

/// The token itself where its grammar allows it, else the lowest that it allows.
fn nearest(guide: &mut Guide, token: u32) -> Result<u32, SampleError> {
    let mask = guide.mask().unwrap_or_default();
    let allowed = |&id: &u32| mask.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
    let first = (0..32 * mask.len() as u32).find(allowed);
    Some(token).filter(allowed).or(first).ok_or(SampleError::NothingAllowed)
}
