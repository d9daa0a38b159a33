//! What comes back, as OpenAI's clients read it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{ToSchema, openapi::Object};

use crate::api::http::dto::packed_json;

/// The answer of `POST /v1/completions`, and each chunk of it when it is streamed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Completion {
    /// `cmpl-` and the request's id.
    #[schema(example = "cmpl-019347e2-8c1a-7d3e-9f00-3a5b7c9d1e2f")]
    pub id: String,
    /// `text_completion`.
    #[schema(example = "text_completion")]
    pub object: &'static str,
    /// When, in seconds since 1970.
    pub created: u64,
    /// The model as the request named it.
    #[schema(example = "sst2")]
    pub model: String,
    /// Names the weights, and the adapter's version: equal ones answer alike.
    #[schema(example = "fp_543df2f46a_9f86d081884c")]
    pub system_fingerprint: String,
    /// `n` for each prompt, in the order of the prompts.
    pub choices: Vec<CompletionChoice>,
    /// Token counts; in a stream null but in the last chunk, and only there with `include_usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub usage: Option<Option<Usage>>,
}

/// One text.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompletionChoice {
    /// Which one.
    pub index: usize,
    /// The text; behind the prompt with `echo`.
    #[schema(example = "positive")]
    pub text: String,
    /// Log-probabilities; null unless they were asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`; null in a stream until the choice has ended.
    #[schema(example = "stop")]
    pub finish_reason: Option<&'static str>,
}

/// Tokens with their log-probabilities: four lists of one length.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    /// What each token stands for; `bytes:\x..` where that is part of a character.
    pub tokens: Vec<String>,
    /// Natural logarithms of raw probabilities; null for the first token of a prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// The most probable tokens at each place, and the one that stands there.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where each token begins in the text, in characters.
    pub text_offset: Vec<usize>,
}

/// The answer of `POST /v1/chat/completions`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    /// `chatcmpl-` and the request's id.
    #[schema(example = "chatcmpl-019347e2-8c1a-7d3e-9f00-3a5b7c9d1e2f")]
    pub id: String,
    /// `chat.completion`.
    #[schema(example = "chat.completion")]
    pub object: &'static str,
    /// When, in seconds since 1970.
    pub created: u64,
    /// The model as the request named it.
    #[schema(example = "sst2")]
    pub model: String,
    /// Names the weights, and the adapter's version: equal ones answer alike.
    #[schema(example = "fp_543df2f46a_9f86d081884c")]
    pub system_fingerprint: String,
    /// `n` of them.
    pub choices: Vec<ChatChoice>,
    /// Token counts.
    pub usage: Usage,
}

/// One answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    /// Which one.
    pub index: usize,
    /// What the model says.
    pub message: AnswerMessage,
    /// Log-probabilities; null unless they were asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// `stop` or `length`.
    #[schema(example = "stop")]
    pub finish_reason: &'static str,
}

/// What the model says.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnswerMessage {
    /// `assistant`.
    #[schema(example = "assistant")]
    pub role: &'static str,
    /// The text; may be empty.
    pub content: String,
    /// Always null.
    pub refusal: Option<String>,
}

/// A chunk of a streamed chat completion.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChunk {
    /// The same in every chunk.
    pub id: String,
    /// `chat.completion.chunk`.
    #[schema(example = "chat.completion.chunk")]
    pub object: &'static str,
    /// When, in seconds since 1970.
    pub created: u64,
    /// The model as the request named it.
    pub model: String,
    /// Names the weights, and the adapter's version.
    pub system_fingerprint: String,
    /// One, or none in the chunk of `usage`.
    pub choices: Vec<ChunkChoice>,
    /// Token counts; with `include_usage`, and null but in the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub usage: Option<Option<Usage>>,
}

/// News of one choice.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChunkChoice {
    /// Which one.
    pub index: usize,
    /// What is new of it.
    pub delta: Delta,
    /// Log-probabilities of what is new; null unless they were asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Null until the choice has ended.
    pub finish_reason: Option<&'static str>,
}

/// What is new of a message.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Delta {
    /// `assistant`, in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// More text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Tokens of a message with their log-probabilities.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// The tokens.
    pub content: Vec<ChatToken>,
    /// Always null.
    pub refusal: Option<Vec<ChatToken>>,
}

/// A token of a message.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct ChatToken {
    /// The token and its own log-probability.
    #[serde(flatten)]
    pub token: RankedToken,
    /// The most probable tokens at its place, best first.
    pub top_logprobs: Vec<RankedToken>,
}

/// A token and how probable it was.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct RankedToken {
    /// What it stands for.
    pub token: String,
    /// Natural logarithm of its raw probability.
    pub logprob: f32,
    /// Its bytes: a token may be part of a character.
    pub bytes: Vec<u8>,
}

/// Token counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompts, each counted once.
    pub prompt_tokens: usize,
    /// Tokens generated, end tokens not counted.
    pub completion_tokens: usize,
    /// The sum of both.
    pub total_tokens: usize,
    /// More about the prompts.
    pub prompt_tokens_details: PromptDetails,
}

/// More about the prompts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct PromptDetails {
    /// Tokens that came from a cache.
    pub cached_tokens: usize,
    /// Not OpenAI's: soft-prompt rows that the adapter put in front, not part of `prompt_tokens`.
    pub virtual_tokens: usize,
}

/// What can be asked for as `model`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    /// The backbone, then the adapters and aliases by name.
    pub data: Vec<ModelObject>,
}

/// The backbone or an adapter.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelObject {
    /// What to write as `model`.
    #[schema(example = "sst2")]
    pub id: String,
    /// `model`.
    #[schema(example = "model")]
    pub object: &'static str,
    /// When it was uploaded (the backbone: when the server started), in seconds since 1970.
    pub created: u64,
    /// The namespace of an adapter; `dept` for the backbone.
    #[schema(example = "shared")]
    pub owned_by: String,
    /// Not OpenAI's: the backbone that an adapter changes; null for the backbone itself.
    #[schema(example = "flan-t5-small-en")]
    pub parent: Option<String>,
}

/// A server-sent event of streamed completions.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what the frames of a stream are; they are written by axum")]
pub struct CompletionEvent {
    #[schema(schema_with = completion_data)]
    data: String,
}

fn completion_data() -> Object {
    packed_json(
        &["Completion", "ErrorBody"],
        "The JSON of a piece of a `Completion`, at last `[DONE]`; or of an `ErrorBody`.",
    )
}

/// A server-sent event of a streamed chat completion.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what the frames of a stream are; they are written by axum")]
pub struct ChatEvent {
    #[schema(schema_with = chat_data)]
    data: String,
}

fn chat_data() -> Object {
    packed_json(
        &["ChatChunk", "ErrorBody"],
        "The JSON of a `ChatChunk`, at last `[DONE]`; or of an `ErrorBody`.",
    )
}
