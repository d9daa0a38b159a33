use std::time::Duration;

use crate::{
    adapter::AdapterLease,
    api::{
        Choice, Classified, LabelScore, Piece,
        grpc::proto::{self, classify_response::Score, generate_stream_response::Delta},
    },
    domain::{FinishReason, GeneratedToken, Timings, Usage},
    tokenizer::Tokenizer,
};

/// What the messages of a response are made with.
pub(in crate::api::grpc) struct Writer {
    /// The request's id.
    pub id: String,
    /// The model's name.
    pub model: String,
    /// The adapter generation.
    pub adapter: Option<AdapterLease>,
    /// Gives alternatives their text.
    pub tokenizer: Tokenizer,
}

impl Writer {
    /// The whole response: the choices of the one prompt.
    pub fn response(&self, choices: Vec<Choice>) -> proto::GenerateResponse {
        let usage = choices.iter().map(|choice| choice.usage).reduce(|sum, one| Usage {
            completion_tokens: sum.completion_tokens + one.completion_tokens,
            ..sum
        });
        let slowest = choices.iter().map(|choice| choice.timings).max_by_key(Timings::total);
        let (adapter, adapter_version) = named(self.adapter.as_ref());
        proto::GenerateResponse {
            id: self.id.clone(),
            model: self.model.clone(),
            adapter,
            adapter_version,
            choices: (0..).zip(choices).map(|(index, choice)| self.choice(index, choice)).collect(),
            usage: Some(usage.unwrap_or_default().into()),
            timings: Some(slowest.unwrap_or_default().into()),
        }
    }

    /// The message of one token.
    pub fn delta(&self, piece: Piece) -> Delta {
        let Piece { place, position, token, text } = piece;
        let token = match token {
            Some(token) => proto::Token { text, ..self.token(token) },
            None => proto::Token { text, ..proto::Token::default() },
        };
        Delta { index: count(place.choice), position: count(position), token: Some(token) }
    }

    fn choice(&self, index: u32, choice: Choice) -> proto::Choice {
        let label = self.adapter.as_ref().and_then(|adapter| adapter.card().label(&choice.text));
        proto::Choice {
            index,
            label: label.map(str::to_owned),
            text: choice.text,
            finish_reason: finish_reason(choice.reason).into(),
            tokens: choice.tokens.into_iter().map(|token| self.token(token)).collect(),
        }
    }

    fn token(&self, token: GeneratedToken) -> proto::Token {
        let named = token.top.iter().map(|scored| proto::ScoredToken {
            id: scored.id,
            text: self.tokenizer.text_of(scored.id),
            logprob: scored.logprob,
        });
        proto::Token { id: Some(token.id), logprob: token.logprob, top: named.collect(), text: token.text }
    }
}

/// The scores of the one prompt.
pub(in crate::api::grpc) fn classify_response(
    (id, model): (String, String),
    adapter: Option<&AdapterLease>,
    classified: Classified,
) -> proto::ClassifyResponse {
    let (adapter, adapter_version) = named(adapter);
    proto::ClassifyResponse {
        id,
        model,
        adapter,
        adapter_version,
        label: Score::from(classified.best().clone()).label,
        scores: classified.scores.into_iter().map(Score::from).collect(),
        usage: Some(classified.usage.into()),
        timings: Some(classified.timings.into()),
    }
}

/// An adapter's name and version.
fn named(adapter: Option<&AdapterLease>) -> (Option<String>, Option<String>) {
    (adapter.map(|held| held.name().to_string()), adapter.map(|held| held.version().to_string()))
}

fn finish_reason(reason: FinishReason) -> proto::FinishReason {
    match reason {
        FinishReason::Stop => proto::FinishReason::Stop,
        FinishReason::Length => proto::FinishReason::Length,
        FinishReason::StopSequence => proto::FinishReason::StopSequence,
        FinishReason::Cancelled => proto::FinishReason::Cancelled,
    }
}

/// A number of things that are far fewer than it could hold.
pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl From<LabelScore> for Score {
    fn from(score: LabelScore) -> Self {
        let LabelScore { text, label, logprob, probability } = score;
        Self { label: label.unwrap_or_else(|| text.clone()), text, logprob, probability }
    }
}

impl From<Usage> for proto::Usage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: count(usage.prompt_tokens),
            virtual_tokens: count(usage.virtual_tokens),
            completion_tokens: count(usage.completion_tokens),
            cached_tokens: count(usage.cached_tokens),
        }
    }
}

impl From<Timings> for proto::Timings {
    fn from(timings: Timings) -> Self {
        // Whole microseconds: more digits would be noise.
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        Self {
            queue_ms: ms(timings.queue),
            prefill_ms: ms(timings.prefill),
            decode_ms: ms(timings.decode),
            total_ms: ms(timings.total()),
        }
    }
}
