//! From a row of logits to a token.
//!
//! The order is that of the field: mask, bias and penalties, temperature, top-k, top-p, min-p, and one draw. A filter
//! sees the distribution that the one before it left; log-probabilities are of the row as the model made it. The edges
//! are those of Hugging Face's warpers: top-k keeps all that tie with the k-th, top-p keeps the token that crosses the
//! bound (of equal ones the lowest ids), min-p is a fraction of the best token's probability, and the best token always
//! stays.
//!
//! A draw depends on the logits, the seed and the position in the output, on nothing else, and its arithmetic is the
//! same on every platform and in every release.

mod candidates;
mod draw;
mod exp;
mod logprobs;
mod mask;
mod penalties;
mod row;

pub use mask::Mask;

use crate::domain::{GivenToken, SamplingParams, ScoredToken};
use candidates::Candidates;
use logprobs::RawScores;
use penalties::Penalties;

/// A row of logits from which no token can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// A logit is NaN or positive infinity.
    #[error("the logit of token {token} is not a number: the weights are broken, or their dtype overflows")]
    NotFinite {
        /// The first such token.
        token: u32,
    },
    /// Every token is masked (negative infinity).
    #[error("no token is allowed here: the mask and the banned tokens leave none")]
    NothingAllowed,
    /// The row has fewer logits than the vocabulary has tokens.
    #[error("a row of {found} logits for a vocabulary of {vocab} tokens: this is a fault of the server")]
    ShortRow {
        /// Logits in the row.
        found: usize,
        /// Tokens in the vocabulary.
        vocab: usize,
    },
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Its log-probability in the raw distribution, where the request asked for log-probabilities.
    pub logprob: Option<f32>,
    /// The most probable tokens of the raw distribution, best first; as many as the request asked for.
    pub top: Vec<ScoredToken>,
}

/// Memory that sampling works in: one for a thread, used by any sequence. Nothing in it outlives a call.
#[derive(Debug, Default)]
pub struct Scratch {
    candidates: Candidates,
    /// Values to select among, reordered freely.
    values: Vec<f32>,
    /// The row as the model made it, where bias or penalties change it and log-probabilities are asked for.
    raw: Vec<f32>,
}

/// How one sequence chooses its tokens, with what the choices so far mean for the next.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
    vocab: usize,
    /// Tokens chosen so far.
    position: u64,
    penalties: Option<Penalties>,
}

impl Sampler {
    /// A sampler at the start of its output. Token ids are below `vocab`; logits from there on are padding.
    ///
    /// `prompt_tokens` count for the repetition penalty: of a causal model the prompt, of an encoder-decoder what
    /// the decoder starts from.
    pub fn new(params: &SamplingParams, seed: u64, prompt_tokens: &[u32], vocab: usize) -> Self {
        let penalties = Penalties::new(params, prompt_tokens);
        Self { params: params.clone(), seed, vocab, position: 0, penalties }
    }

    /// Chooses the next token from `logits` and remembers it. The row is working memory afterwards.
    ///
    /// Negative infinity is a masked token. Greedy takes the lowest id among the best, and without
    /// log-probabilities reads the row once and allocates nothing.
    ///
    /// # Errors
    /// [`SampleError`], with the sampler as it was.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        mask: Mask<'_>,
        scratch: &mut Scratch,
    ) -> Result<Sampled, SampleError> {
        let (found, vocab) = (logits.len(), self.vocab);
        let row = logits.get_mut(..vocab).ok_or(SampleError::ShortRow { found, vocab })?;
        let scores = self.raw_scores(row, scratch)?;
        mask.apply(row);
        self.bias(row);
        if let Some(penalties) = &self.penalties {
            penalties.apply(row);
        }
        let best = row::best(row)?;
        let token = if self.params.is_greedy() {
            best.token
        } else {
            self.filter(row, best.logit, scratch);
            scratch.candidates.pick(draw::uniform(self.seed, self.position))
        };
        self.position += 1;
        if let Some(penalties) = &mut self.penalties {
            penalties.count(token);
        }
        let raw = if self.reshapes() && scores.is_some() { &scratch.raw } else { &*row };
        let logprob = scores.as_ref().map(|scores| scores.logprob(raw[token as usize]));
        Ok(Sampled { token, logprob, top: scores.map(|scores| scores.top).unwrap_or_default() })
    }

    /// Whether the next token is the best of the logits as they are, and nothing else of them is asked for: then whoever has
    /// them may choose it ([`Sampler::take_best`]).
    pub fn wants_the_best(&self) -> bool {
        self.params.is_greedy() && self.params.logprobs == 0 && !self.reshapes()
    }

    /// Remembers a token that was chosen elsewhere: of the first [`Sampler::vocab`] logits the largest, of equal ones the
    /// lowest id.
    pub fn take_best(&mut self, token: u32) -> Sampled {
        self.position += 1;
        Sampled { token, logprob: None, top: Vec::new() }
    }

    /// Logits of a row that are tokens.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// How probable `token` is by `logits`, whatever the sampler would choose; it remembers nothing of it.
    ///
    /// # Errors
    /// [`SampleError`], also for a token beyond the vocabulary.
    pub fn score(
        &self,
        logits: &[f32],
        token: u32,
        scratch: &mut Scratch,
    ) -> Result<GivenToken, SampleError> {
        let (found, vocab) = (logits.len(), self.vocab);
        let row = logits.get(..vocab).ok_or(SampleError::ShortRow { found, vocab })?;
        let scores = RawScores::new(row, self.params.logprobs.into(), &mut scratch.values)?;
        let logit = row.get(token as usize).ok_or(SampleError::ShortRow { found: token as usize, vocab })?;
        Ok(GivenToken { id: token, logprob: scores.logprob(*logit), top: scores.top })
    }

    /// Whether the logits of tokens that may be chosen are changed.
    fn reshapes(&self) -> bool {
        self.penalties.is_some() || !self.params.logit_bias.is_empty()
    }

    /// Adds what the request wants added. What is masked stays so.
    fn bias(&self, row: &mut [f32]) {
        for &(token, bias) in self.params.logit_bias.iter() {
            if let Some(logit) = row.get_mut(token as usize).filter(|logit| logit.is_finite()) {
                *logit = (*logit + bias).clamp(f32::MIN, f32::MAX);
            }
        }
    }

    /// The raw distribution's best, where the request wants to know.
    fn raw_scores(&self, row: &[f32], scratch: &mut Scratch) -> Result<Option<RawScores>, SampleError> {
        if self.params.logprobs == 0 {
            return Ok(None);
        }
        if self.reshapes() {
            scratch.raw.clear();
            scratch.raw.extend_from_slice(row);
        }
        RawScores::new(row, self.params.logprobs.into(), &mut scratch.values).map(Some)
    }

    /// Leaves in `scratch` the tokens that may be drawn, with their weights. `max` is the row's largest logit.
    fn filter(&self, row: &[f32], max: f32, scratch: &mut Scratch) {
        let params = &self.params;
        let top_k = params.top_k as usize;
        let floor = if (1..row.len()).contains(&top_k) {
            row::kth_largest(row, top_k, &mut scratch.values)
        } else {
            f32::NEG_INFINITY
        };
        let candidates = &mut scratch.candidates;
        candidates.fill(row, floor, max, params.temperature);
        if params.top_p < 1.0 {
            candidates.keep_top_p(params.top_p);
        }
        if params.min_p > 0.0 {
            candidates.keep_min_p(params.min_p);
        }
    }
}

#[cfg(test)]
mod tests;
