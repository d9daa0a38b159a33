//! What completions and chat have in common: the fields of a request and what they mean.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{errors::unsupported, ignored::Fields};
use crate::{
    api::{
        ApiError, bounds,
        http::dto::{LogitBiasField, ResponseFormat, Truncate, grammar::grammar, request as native},
    },
    domain::{GenerateRequest, OverLength, Prompt, RawSampling, SamplingParams, TenantId},
};

/// Declares a body: its own fields, then those that both routes have.
macro_rules! body {
    ($(#[$meta:meta])* $name:ident { $($own:tt)* }) => {
        $crate::api::http::openai::fields::object! {
            $(#[$meta])* $name {
                $($own)*
                /// The adapter's name, or `name@version`, or the backbone's name: `GET /v1/models` lists them.
                #[schema(example = "sst2", nullable = false)]
                model: Option<String>,
                /// 0 takes the most probable token; larger values flatten the distribution.
                #[schema(minimum = 0, maximum = 100, default = 1.0)]
                temperature: Option<f64>,
                /// Keep the smallest set of tokens whose probability reaches this; 0 keeps the most probable one.
                #[schema(minimum = 0, maximum = 1, default = 1.0)]
                top_p: Option<f64>,
                /// Choices for each prompt.
                #[schema(minimum = 1, maximum = 64, default = 1)]
                n: Option<u32>,
                /// A text, or a list of up to 16; generation ends in front of any of them.
                #[schema(value_type = Option<StopField>)]
                stop: Option<StopField>,
                /// Fixes the random choices; choice i draws with seed + i. Random when absent.
                seed: Option<i64>,
                /// Added to the logits of tokens, by their ids: -100 all but forbids one, 100 all but forces it.
                #[schema(value_type = Option<std::collections::BTreeMap<String, f64>>)]
                logit_bias: Option<$crate::api::http::dto::LogitBiasField>,
                /// Subtracted once from the logits of generated tokens.
                #[schema(minimum = -2, maximum = 2, default = 0.0)]
                presence_penalty: Option<f64>,
                /// Subtracted from the logits of generated tokens for each occurrence.
                #[schema(minimum = -2, maximum = 2, default = 0.0)]
                frequency_penalty: Option<f64>,
                /// Send the answer as it comes, as server-sent events.
                #[schema(default = false)]
                stream: Option<bool>,
                /// How it is streamed; only with `stream`.
                stream_options: Option<StreamOptions>,
                /// The form of the answer: `{"type": "text"}`.
                response_format: Option<$crate::api::http::dto::ResponseFormat>,
                /// Who the request is for, in the client's words. Taken, neither stored nor logged.
                #[expect(dead_code, reason = "it is taken and nothing is done with it")]
                user: Option<String>,
                /// Not OpenAI's: keep the k most probable tokens; 0 or -1 keeps all.
                #[schema(minimum = -1, default = 0)]
                top_k: Option<i64>,
                /// Not OpenAI's: keep tokens at least this fraction as probable as the most probable one.
                #[schema(minimum = 0, maximum = 1, default = 0.0)]
                min_p: Option<f64>,
                /// Not OpenAI's: makes tokens seen in prompt or output less likely; 1 is none.
                #[schema(exclusive_minimum = 0, maximum = 10, default = 1.0)]
                repetition_penalty: Option<f64>,
                /// Not OpenAI's: no end token before this many tokens.
                #[schema(default = 0)]
                min_tokens: Option<u32>,
                /// Not OpenAI's: what to do with a prompt that is too long. The card's policy, else `error`.
                truncate: Option<$crate::api::http::dto::Truncate>,
                /// Not OpenAI's: larger runs earlier; a key has a greatest one that it may use.
                #[schema(default = 0)]
                priority: Option<i32>,
                /// Not OpenAI's: give up after this many milliseconds; 0 waits.
                #[schema(default = 0)]
                timeout_ms: Option<u64>,
            }
        }

        impl $name {
            /// What both routes have, taken out.
            pub(super) fn common(&mut self) -> $crate::api::http::openai::fields::Common {
                $crate::api::http::openai::fields::Common {
                    model: self.model.take(),
                    temperature: self.temperature,
                    top_p: self.top_p,
                    n: self.n,
                    stop: self.stop.take(),
                    seed: self.seed,
                    logit_bias: self.logit_bias.take(),
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    stream: self.stream,
                    stream_options: self.stream_options.take(),
                    response_format: self.response_format.take(),
                    top_k: self.top_k,
                    min_p: self.min_p,
                    repetition_penalty: self.repetition_penalty,
                    min_tokens: self.min_tokens,
                    truncate: self.truncate,
                    priority: self.priority,
                    timeout_ms: self.timeout_ms,
                }
            }
        }
    };
}

/// Declares an object whose unknown fields are ignored, and says which fields it knows.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $kind:ty,)* }) => {
        #[derive(Debug, Default, serde::Deserialize, utoipa::ToSchema)]
        $(#[$meta])*
        pub struct $name {
            $($(#[$about])* pub $field: $kind,)*
        }

        impl $name {
            /// The names of its fields.
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];
        }
    };
}

pub(super) use {body, object};

object! {
    /// How a response is streamed.
    StreamOptions {
        /// Whether the last chunk says how many tokens were used.
        #[schema(default = false)]
        include_usage: Option<bool>,
    }
}

impl StreamOptions {
    /// What is known of it.
    pub(super) const FIELDS: Fields = Fields { names: Self::NAMES, inside: &[] };
}

/// `stop`: one text or a list of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum StopField {
    /// One text.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// The fields that both routes have.
pub(super) struct Common {
    pub model: Option<String>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub n: Option<u32>,
    pub stop: Option<StopField>,
    pub seed: Option<i64>,
    pub logit_bias: Option<LogitBiasField>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub response_format: Option<ResponseFormat>,
    pub top_k: Option<i64>,
    pub min_p: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub min_tokens: Option<u32>,
    pub truncate: Option<Truncate>,
    pub priority: Option<i32>,
    pub timeout_ms: Option<u64>,
}

/// Whether and how the answer is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Whole,
    Stream { usage: bool },
}

/// What a route adds to the common fields.
pub(super) struct Own {
    pub prompts: Vec<Prompt>,
    pub max_tokens: Option<u32>,
    /// As in [`GenerateRequest`].
    pub usual_tokens: Option<u32>,
    pub scores_prompts: bool,
    /// Alternatives to report; `None` reports no log-probabilities.
    pub logprobs: Option<u8>,
}

impl Common {
    /// The model's name.
    pub fn model(&mut self) -> Result<String, ApiError> {
        let named = self.model.take().filter(|model| !model.is_empty());
        named.ok_or_else(|| {
            ApiError::invalid("model", "model is missing: GET /v1/models lists those that you can use")
        })
    }

    /// How the answer is delivered.
    pub fn delivery(&self) -> Result<Delivery, ApiError> {
        match (self.stream.unwrap_or(false), &self.stream_options) {
            (false, None) => Ok(Delivery::Whole),
            (false, Some(_)) => {
                Err(ApiError::invalid("stream_options", "stream_options are for streams: set stream to true"))
            }
            (true, options) => {
                let usage = options.as_ref().and_then(|options| options.include_usage);
                Ok(Delivery::Stream { usage: usage.unwrap_or(false) })
            }
        }
    }

    /// The request.
    pub fn request(self, own: Own) -> Result<GenerateRequest, ApiError> {
        let sampling = self.sampling(own.logprobs)?;
        let stop = match self.stop {
            None => Vec::new(),
            Some(StopField::One(stop)) => vec![stop],
            Some(StopField::Several(stops)) => stops,
        };
        Ok(GenerateRequest {
            tenant: TenantId::default_tenant(),
            adapter: None,
            prompts: own.prompts,
            max_tokens: own.max_tokens,
            usual_tokens: own.usual_tokens,
            scores_prompts: own.scores_prompts,
            min_tokens: self.min_tokens.unwrap_or(0),
            sampling,
            stop: bounds::stop(stop)?,
            grammar: grammar(self.response_format, None, None)?,
            n: bounds::choices(self.n)?,
            truncate: self.truncate.map(OverLength::from),
            priority: self.priority.unwrap_or(0),
            timeout: native::timeout(self.timeout_ms),
        })
    }

    fn sampling(&self, logprobs: Option<u8>) -> Result<SamplingParams, ApiError> {
        let default = RawSampling::default();
        let top_k = match self.top_k.unwrap_or(0) {
            -1 => 0,
            k => u32::try_from(k).map_err(|_| {
                ApiError::invalid("top_k", format!("top_k is {k}: use 0 to {}, or -1 for all", u32::MAX))
            })?,
        };
        Ok(SamplingParams::new(RawSampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_k,
            // The smallest set that reaches nothing is the most probable token.
            top_p: match self.top_p.unwrap_or(1.0) {
                0.0 => f64::MIN_POSITIVE,
                top_p => top_p,
            },
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            logit_bias: self.logit_bias.clone().unwrap_or_default().0,
            seed: self.seed.map(i64::cast_unsigned),
            // The choice's own log-probability comes with the first alternative.
            logprobs: logprobs.map_or(0, |wanted| wanted.max(1)),
        })?)
    }
}

/// Refuses a field that is known and can't be honoured, unless what it says is as good as nothing.
pub(super) fn refuse(param: &str, field: Option<&Value>, instead: &str) -> Result<(), ApiError> {
    let asks = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    match field {
        Some(value) if asks(value) => Err(unsupported(param, "it", instead)),
        _ => Ok(()),
    }
}
