use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Ref, extensions::Extensions, schema::Type},
};

use crate::domain::{Timings, Usage};

/// The answer of `POST /v1/generate`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "019347e2-8c1a-7d3e-9f00-3a5b7c9d1e2f", "model": "flan-t5-small-en", "adapter": "sst2",
    "adapter_version": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "text": "positive", "label": "positive", "finish_reason": "stop",
    "usage": {"prompt_tokens": 12, "virtual_tokens": 20, "completion_tokens": 1, "cached_tokens": 0},
    "timings": {"queue_ms": 0.2, "prefill_ms": 4.1, "decode_ms": 1.3, "total_ms": 5.6}
}))]
pub struct GenerateResponse {
    /// The request's id.
    #[schema(example = "019347e2-8c1a-7d3e-9f00-3a5b7c9d1e2f")]
    pub id: String,
    /// The model that ran it.
    #[schema(example = "flan-t5-small-en")]
    pub model: String,
    /// The adapter; null is the bare backbone.
    #[schema(example = "sst2")]
    pub adapter: Option<String>,
    /// The adapter's generation that it ran with.
    pub adapter_version: Option<String>,
    /// What came out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// One result, or a batch of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Outcome {
    /// The result of one prompt.
    One(ResultObject),
    /// Where `prompt` was a list of texts.
    Batch {
        /// One for each prompt, in order.
        results: Vec<ResultObject>,
        /// Token counts of all of them together.
        usage: UsageObject,
    },
}

/// The result of one prompt.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResultObject {
    /// The text, or the choices.
    #[serde(flatten)]
    pub output: Output,
    /// Token counts; of all choices together, the prompt counted once.
    pub usage: UsageObject,
    /// Where the time went; of the slowest choice.
    pub timings: TimingsObject,
}

/// The text, or the choices where `n` is more than 1.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Output {
    /// The only choice.
    Single(ChoiceObject),
    /// `n` choices.
    Several {
        /// The choices in order.
        choices: Vec<ChoiceObject>,
    },
}

/// One generated text.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChoiceObject {
    /// Which choice; only where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The generated text.
    #[schema(example = "positive")]
    pub text: String,
    /// What the adapter's card calls this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "positive")]
    pub label: Option<String>,
    /// `stop`, `length`, `stop_sequence` or `cancelled`.
    #[schema(example = "stop")]
    pub finish_reason: &'static str,
    /// The tokens; only with `logprobs` of 1 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<TokenObject>>,
}

/// A generated token.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenObject {
    /// Its id.
    #[schema(example = 1465)]
    pub id: u32,
    /// The text that became certain with it.
    #[schema(example = "positive")]
    pub text: String,
    /// Natural logarithm of its raw probability.
    #[schema(example = -0.01)]
    pub logprob: Option<f32>,
    /// The most probable tokens at its place, best first.
    pub top: Vec<TopToken>,
}

/// An alternative.
#[derive(Debug, Serialize, ToSchema)]
pub struct TopToken {
    /// Its id.
    #[schema(example = 2841)]
    pub id: u32,
    /// Its text.
    #[schema(example = "negative")]
    pub text: String,
    /// Natural logarithm of its raw probability.
    #[schema(example = -4.6)]
    pub logprob: f32,
}

/// Token counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsageObject {
    /// Tokens of the prompt, the tokenizer's own included.
    #[schema(example = 12)]
    pub prompt_tokens: usize,
    /// Soft-prompt rows that the adapter put in front.
    #[schema(example = 20)]
    pub virtual_tokens: usize,
    /// Tokens generated.
    #[schema(example = 1)]
    pub completion_tokens: usize,
    /// Prompt and virtual tokens that came from a cache.
    #[schema(example = 0)]
    pub cached_tokens: usize,
}

/// Where the time went, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct TimingsObject {
    /// Until the first step worked on it.
    #[schema(example = 0.2)]
    pub queue_ms: f64,
    /// From then to the first token.
    #[schema(example = 4.1)]
    pub prefill_ms: f64,
    /// From the first token to the last.
    #[schema(example = 1.3)]
    pub decode_ms: f64,
    /// All of it.
    #[schema(example = 5.6)]
    pub total_ms: f64,
}

/// A server-sent event of a streamed response.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what the frames of a stream are; they are written by axum")]
pub struct ServerSentEvent {
    #[schema(schema_with = event_data)]
    data: String,
}

fn event_data() -> Object {
    packed_json(
        &["StreamEvent", "GenerateResponse", "ErrorBody"],
        "The JSON of a `StreamEvent` for each token, then of the whole `GenerateResponse`, then `[DONE]`; or of an `ErrorBody` \
         where it failed, which ends the stream.",
    )
}

/// A text with the JSON of one of the schemas `inside`, which plain JSON Schema can only hint at.
pub fn packed_json(inside: &[&str], description: &str) -> Object {
    let inside: Vec<Ref> = inside.iter().map(|&name| Ref::from_schema_name(name)).collect();
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .content_media_type("application/json")
        .extensions(Some(Extensions::from_iter([("x-content-schema", json!({"oneOf": inside}))])))
        .build()
}

/// One token of a streamed response.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamEvent {
    /// Which prompt; only where `prompt` was a list of texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<usize>,
    /// Which choice.
    #[schema(example = 0)]
    pub index: usize,
    /// How many events of this choice came before.
    #[schema(example = 0)]
    pub position: usize,
    /// The token.
    pub token: StreamToken,
}

/// A token of a streamed response. Texts joined are the final text.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamToken {
    /// Its id; null for text that was held back (a possible stop string) and is released at the end.
    #[schema(example = 1465)]
    pub id: Option<u32>,
    /// The text that became certain with it; may be empty.
    #[schema(example = "positive")]
    pub text: String,
    /// Natural logarithm of its raw probability; only with `logprobs` of 1 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = -0.01)]
    pub logprob: Option<f32>,
    /// The most probable tokens at its place; only with `logprobs` of 1 or more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<TopToken>,
}

impl From<Usage> for UsageObject {
    fn from(usage: Usage) -> Self {
        let Usage { prompt_tokens, virtual_tokens, completion_tokens, cached_tokens } = usage;
        Self { prompt_tokens, virtual_tokens, completion_tokens, cached_tokens }
    }
}

impl std::ops::Add for UsageObject {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            virtual_tokens: self.virtual_tokens + other.virtual_tokens,
            completion_tokens: self.completion_tokens + other.completion_tokens,
            cached_tokens: self.cached_tokens + other.cached_tokens,
        }
    }
}

impl From<Timings> for TimingsObject {
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
