use std::sync::Arc;

/// Most alternatives that a request may ask log-probabilities for.
pub const MAX_LOGPROBS: u8 = 20;

/// What is added to the logits of some tokens, by id. Cheap to clone.
pub type LogitBias = Arc<[(u32, f32)]>;

/// A sampling value outside its range: which, what it was, what is allowed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{param} is {found}: use {allowed}")]
pub struct SamplingError {
    /// The field's name on the wire.
    pub param: &'static str,
    /// The value as it came.
    pub found: f64,
    /// What the field takes, in words.
    pub allowed: &'static str,
}

/// The sampling fields as a client wrote them, not yet checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RawSampling {
    /// 0 takes the most probable token; larger values flatten the distribution.
    pub temperature: f64,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of tokens whose probability reaches this.
    pub top_p: f64,
    /// Keep tokens at least this fraction as probable as the most probable one.
    pub min_p: f64,
    /// Divides (or multiplies) the logits of tokens seen in prompt or output (CTRL, Keskar 2019).
    pub repetition_penalty: f64,
    /// Subtracted once from the logits of every generated token.
    pub presence_penalty: f64,
    /// Subtracted from the logits of generated tokens for each occurrence.
    pub frequency_penalty: f64,
    /// Added to the logits of these tokens, no id twice; -100 all but forbids a token, 100 all but forces it.
    pub logit_bias: LogitBias,
    /// Fixes the random choices; absent, the server draws one.
    pub seed: Option<u64>,
    /// How many alternatives to report with their log-probabilities; 0 reports none.
    pub logprobs: u8,
}

impl Default for RawSampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: LogitBias::default(),
            seed: None,
            logprobs: 0,
        }
    }
}

/// Checked sampling parameters: every value is finite and in range.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams(RawSampling);

impl SamplingParams {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn new(raw: RawSampling) -> Result<Self, SamplingError> {
        let check = |param, found: f64, legal: bool, allowed| {
            if legal { Ok(()) } else { Err(SamplingError { param, found, allowed }) }
        };
        let within = |x: f64, low: f64, high: f64| (low..=high).contains(&x);
        let r = &raw;
        check("temperature", r.temperature, within(r.temperature, 0.0, 100.0), "0 (greedy) to 100")?;
        check("top_p", r.top_p, r.top_p > 0.0 && r.top_p <= 1.0, "more than 0, up to 1")?;
        check("min_p", r.min_p, within(r.min_p, 0.0, 1.0), "0 to 1")?;
        let repetition = r.repetition_penalty > 0.0 && r.repetition_penalty <= 10.0;
        check("repetition_penalty", r.repetition_penalty, repetition, "more than 0, up to 10; 1 is none")?;
        let presence = within(r.presence_penalty, -2.0, 2.0);
        check("presence_penalty", r.presence_penalty, presence, "-2 to 2")?;
        let frequency = within(r.frequency_penalty, -2.0, 2.0);
        check("frequency_penalty", r.frequency_penalty, frequency, "-2 to 2")?;
        for &(_, bias) in r.logit_bias.iter() {
            check("logit_bias", bias.into(), (-100.0..=100.0).contains(&bias), "-100 to 100")?;
        }
        check("logprobs", r.logprobs.into(), r.logprobs <= MAX_LOGPROBS, "0 to 20")?;
        Ok(Self(raw))
    }

    /// Greedy decoding without penalties.
    pub fn greedy() -> Self {
        Self(RawSampling::default())
    }

    /// Whether the most probable token is always taken.
    pub fn is_greedy(&self) -> bool {
        self.0.temperature == 0.0
    }

    /// The same parameters with another seed: choice `i` of a request with `n` choices gets seed + i.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.0.seed = Some(seed);
        self
    }
}

impl std::ops::Deref for SamplingParams {
    type Target = RawSampling;

    fn deref(&self) -> &RawSampling {
        &self.0
    }
}
