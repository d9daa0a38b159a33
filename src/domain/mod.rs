//! The words of the product: names, requests, tokens, outcomes. No I/O and no tensors.

mod chat;
mod event;
mod grammar;
mod model;
mod name;
pub mod namespace;
mod request;
mod sampling;
mod utc;

pub use chat::{ChatMessage, Role};
pub use event::{
    Completion, FinishReason, GeneratedToken, GivenToken, GrammarStuck, ScoredToken, Scoring, SequenceError,
    Timings, TokenEvent, Usage,
};
pub use grammar::{
    Choices, Grammar, GrammarError, MAX_CHOICE_BYTES, MAX_CHOICES, MAX_REGEX_BYTES, MAX_SCHEMA_BYTES,
    Pattern, Schema,
};
pub use model::{ContextWindow, ModelKind, ModelProfile};
pub use name::{AdapterName, AdapterRef, MIN_VERSION_PREFIX, NameError, TenantId, Version, VersionPrefix};
pub use namespace::Namespace;
pub use request::{ClassifyRequest, GenerateRequest, Normalize, OverLength, Prompt};
pub use sampling::{LogitBias, MAX_LOGPROBS, RawSampling, SamplingError, SamplingParams};
pub use utc::UtcTime;

#[cfg(test)]
mod tests;
