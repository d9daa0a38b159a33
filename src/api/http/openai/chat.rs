//! The body of `POST /v1/chat/completions`.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Ask, Form,
    errors::unsupported,
    fields::{Own, StopField, StreamOptions, body, object, refuse},
    ignored::{Fields, Lenient},
};
use crate::{
    api::ApiError,
    domain::{ChatMessage, MAX_LOGPROBS, Prompt, Role},
};

body! {
    /// The body of `POST /v1/chat/completions`.
    #[schema(example = json!({
        "model": "flan-t5-small-en",
        "messages": [{"role": "user", "content": "Translate English to German: The house is small."}],
    }))]
    ChatBody {
        /// The conversation so far, at least one message.
        #[schema(min_items = 1, nullable = false)]
        messages: Option<Vec<MessageBody>>,
        /// Most tokens to generate. The card's value, else as many as there is room for.
        #[schema(minimum = 1)]
        max_completion_tokens: Option<u32>,
        /// The older name of `max_completion_tokens`.
        #[schema(minimum = 1)]
        max_tokens: Option<u32>,
        /// Report log-probabilities.
        #[schema(default = false)]
        logprobs: Option<bool>,
        /// Alternatives to report at each place; only with `logprobs`.
        #[schema(maximum = 20, default = 0)]
        top_logprobs: Option<u8>,
        /// Only `["text"]` can be honoured.
        modalities: Option<Vec<String>>,
        /// Can't be honoured: this model calls no tools.
        tools: Option<Value>,
        /// Only `none` and `auto` can be honoured.
        tool_choice: Option<Value>,
        /// Can't be honoured: the older name of `tools`.
        functions: Option<Value>,
        /// Only `none` and `auto` can be honoured.
        function_call: Option<Value>,
        /// Can't be honoured: this model does not speak.
        audio: Option<Value>,
        /// Can't be honoured: this server asks nobody.
        web_search_options: Option<Value>,
    }
}

object! {
    /// One message.
    MessageBody {
        /// `system` (or `developer`), `user` or `assistant`.
        #[schema(example = "user", nullable = false)]
        role: Option<String>,
        /// A text, or a list of parts of type `text`, which are joined by line breaks.
        #[schema(value_type = Option<Content>)]
        content: Option<Content>,
        /// Can't be honoured: this model calls no tools.
        tool_calls: Option<Value>,
        /// Can't be honoured: the older name of `tool_calls`.
        function_call: Option<Value>,
        /// Can't be honoured: this model does not speak.
        audio: Option<Value>,
    }
}

/// What a message says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of parts with a type")]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts of it.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Part {
    /// `text`.
    #[serde(rename = "type")]
    #[schema(example = "text")]
    pub kind: String,
    /// The text.
    pub text: Option<String>,
}

impl Lenient for ChatBody {
    const FIELDS: Fields = Fields {
        names: Self::NAMES,
        inside: &[
            ("stream_options", &StreamOptions::FIELDS),
            ("messages", &Fields { names: MessageBody::NAMES, inside: &[] }),
        ],
    };
}

impl TryFrom<ChatBody> for Ask {
    type Error = ApiError;

    fn try_from(mut body: ChatBody) -> Result<Self, ApiError> {
        let mut common = body.common();
        let model = common.model()?;
        body.refuse()?;
        let logprobs = body.logprobs()?;
        let max_tokens = match (body.max_completion_tokens, body.max_tokens) {
            (Some(new), Some(old)) if new != old => {
                let message =
                    format!("max_tokens is {old} and max_completion_tokens {new}: send one of them");
                return Err(ApiError::invalid("max_tokens", message));
            }
            (new, old) => new.or(old),
        };
        let messages = messages(body.messages.unwrap_or_default())?;
        let delivery = common.delivery()?;
        let request = common.request(Own {
            prompts: vec![Prompt::Chat(messages)],
            max_tokens,
            usual_tokens: None,
            scores_prompts: false,
            logprobs,
        })?;
        let form = Form::Chat { logprobs, completion_tokens: body.max_completion_tokens.is_some() };
        Ok(Self { model, request, delivery, form })
    }
}

impl ChatBody {
    /// What is known and can't be honoured.
    fn refuse(&self) -> Result<(), ApiError> {
        let instead = "describe in the prompt what the answer should be";
        refuse("tools", self.tools.as_ref(), instead)?;
        refuse("functions", self.functions.as_ref(), instead)?;
        for (param, choice) in [("tool_choice", &self.tool_choice), ("function_call", &self.function_call)] {
            let idle =
                choice.as_ref().and_then(Value::as_str).is_some_and(|word| matches!(word, "none" | "auto"));
            if !idle {
                refuse(param, choice.as_ref(), instead)?;
            }
        }
        refuse("audio", self.audio.as_ref(), "ask for text")?;
        refuse(
            "web_search_options",
            self.web_search_options.as_ref(),
            "put what is to be known into the prompt",
        )?;
        match self.modalities.iter().flatten().find(|modality| *modality != "text") {
            Some(other) => Err(unsupported("modalities", &format!("'{other}'"), "ask for text")),
            None => Ok(()),
        }
    }

    /// How many alternatives are to be reported; `None` reports no log-probabilities.
    fn logprobs(&self) -> Result<Option<u8>, ApiError> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, Some(top)) if top > MAX_LOGPROBS => {
                let message = format!("top_logprobs is {top}: use 0 to {MAX_LOGPROBS}");
                Err(ApiError::invalid("top_logprobs", message))
            }
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(top)) => {
                let message = format!("top_logprobs is {top} without logprobs: set logprobs to true");
                Err(ApiError::invalid("top_logprobs", message))
            }
        }
    }
}

fn messages(bodies: Vec<MessageBody>) -> Result<Vec<ChatMessage>, ApiError> {
    if bodies.is_empty() {
        return Err(ApiError::invalid("messages", "there are no messages: send at least one"));
    }
    bodies.into_iter().enumerate().map(|(at, body)| message(&format!("messages[{at}]"), body)).collect()
}

fn message(at: &str, body: MessageBody) -> Result<ChatMessage, ApiError> {
    let instead = "send what was said as text";
    refuse(&format!("{at}.tool_calls"), body.tool_calls.as_ref(), instead)?;
    refuse(&format!("{at}.function_call"), body.function_call.as_ref(), instead)?;
    refuse(&format!("{at}.audio"), body.audio.as_ref(), instead)?;
    let param = format!("{at}.role");
    let role = match body.role.as_deref() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some(role @ ("tool" | "function")) => {
            return Err(unsupported(&param, &format!("messages of a {role}"), instead));
        }
        Some(other) => {
            let message = format!("{param} is '{other}': use system, user or assistant");
            return Err(ApiError::invalid(param, message));
        }
        None => {
            return Err(ApiError::invalid(param, "the role is missing: use system, user or assistant"));
        }
    };
    let param = format!("{at}.content");
    let content = match body.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => joined(&param, parts)?,
        // An assistant that only called tools, or refused.
        None if role == Role::Assistant => String::new(),
        None => return Err(ApiError::invalid(param, "the content is missing: send some text")),
    };
    Ok(ChatMessage { role, content })
}

/// The text of a message in parts.
fn joined(at: &str, parts: Vec<Part>) -> Result<String, ApiError> {
    let text = |(number, part): (usize, Part)| {
        let param = format!("{at}[{number}]");
        match (part.kind.as_str(), part.text) {
            ("text", Some(text)) => Ok(text),
            ("text", None) => {
                Err(ApiError::invalid(format!("{param}.text"), "the text of the part is missing: send it"))
            }
            (other, _) => {
                Err(unsupported(&param, &format!("parts of type '{other}'"), "send parts of type 'text'"))
            }
        }
    };
    let texts: Vec<String> = parts.into_iter().enumerate().map(text).collect::<Result<_, _>>()?;
    Ok(texts.join("\n"))
}
