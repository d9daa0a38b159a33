//! From what a client wrote to token ids that fit the adapter and the model.

use std::time::SystemTime;

use super::{ApiError, DEFAULT_MAX_TOKENS, ErrorCode};
use crate::{
    adapter::AdapterLease,
    domain::{ChatMessage, ContextWindow, ModelKind, ModelProfile, OverLength, Prompt, Role},
    tokenizer::{Tokenizer, TruncateSide},
};

/// What a prompt is turned into ids with.
pub(super) struct Prompts<'a> {
    pub tokenizer: &'a Tokenizer,
    pub model: &'a ModelProfile,
    pub adapter: Option<&'a AdapterLease>,
    pub answer: AnswerLength,
}

/// How long an answer may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AnswerLength {
    /// Fewest that make sense: 1, or 0 where the prompts themselves are scored.
    pub least: u32,
    /// What the request says.
    pub asked: Option<u32>,
    /// What holds where it says nothing, as far as there is room; `None` is all the room.
    pub usual: Option<u32>,
}

impl Prompts<'_> {
    /// The ids of `prompt`, none over the vocabulary, not cut yet. `param` is the field to blame.
    pub fn encode(&self, prompt: &Prompt, param: &str) -> Result<Vec<u32>, ApiError> {
        match prompt {
            Prompt::Text(text) => self.encode_text(text, param),
            Prompt::Inputs(inputs) => {
                let Some(adapter) = self.adapter else {
                    let message =
                        "inputs need an adapter, whose card has the template: name one, or send a prompt";
                    return Err(ApiError::invalid("inputs", message));
                };
                let rendered = adapter.card().render(inputs).ok_or_else(|| {
                    let name = adapter.name();
                    let message = format!("adapter '{name}' has no template for inputs: send a prompt");
                    ApiError::invalid("inputs", message)
                })?;
                let text = rendered.map_err(|error| ApiError::invalid("inputs", error.to_string()))?;
                self.encode_text(&text, "inputs")
            }
            Prompt::Ids(ids) => self.in_vocabulary(ids.clone(), param),
            Prompt::Chat(messages) => self.encode_chat(messages, param),
        }
    }

    /// The ids of a conversation. An encoder-decoder model without a template reads what the user said last.
    fn encode_chat(&self, messages: &[ChatMessage], param: &str) -> Result<Vec<u32>, ApiError> {
        let refused = |error: &dyn std::fmt::Display| ApiError::invalid(param, error.to_string());
        if let Some(template) = self.tokenizer.chat_template() {
            let text = template.map_err(|error| refused(error))?.render(messages, SystemTime::now());
            let text = text.map_err(|error| refused(&error))?;
            // The template has written the special tokens already.
            let ids = self.tokenizer.encode_bare(&text).map_err(|error| refused(&error))?;
            return self.in_vocabulary(ids, param);
        }
        let name = &self.model.name;
        if self.model.kind == ModelKind::Causal {
            let message = format!(
                "model '{name}' has no chat template: use /v1/completions, or put its chat_template.jinja beside it"
            );
            return Err(refused(&message));
        }
        match messages.iter().rfind(|message| message.role == Role::User) {
            Some(asked) => self.encode_text(&asked.content, param),
            None => {
                Err(refused(&format!("model '{name}' reads what the user said last: send a user's message")))
            }
        }
    }

    fn encode_text(&self, text: &str, param: &str) -> Result<Vec<u32>, ApiError> {
        let ids = self.tokenizer.encode(text).map_err(|error| ApiError::invalid(param, error.to_string()))?;
        // A tokenizer may know tokens that its model has no row for.
        self.in_vocabulary(ids, param)
    }

    fn in_vocabulary(&self, ids: Vec<u32>, param: &str) -> Result<Vec<u32>, ApiError> {
        let size = self.model.vocab_size;
        match ids.iter().position(|&id| id as usize >= size) {
            Some(at) => Err(ApiError::invalid(
                format!("{param}[{at}]"),
                format!("token id {} is outside the vocabulary: ids are 0 to {}", ids[at], size - 1),
            )),
            None => Ok(ids),
        }
    }

    /// `ids` if they fit the adapter's s and the model's rows, else cut or refused as `policy` says.
    pub fn fit(&self, ids: Vec<u32>, policy: OverLength, param: &str) -> Result<Vec<u32>, ApiError> {
        if ids.is_empty() {
            return Err(ApiError::invalid(param, "the prompt gives no tokens: send some text"));
        }
        // Who wants a prompt cut wants an answer too; else one token is enough for a prompt to be legal.
        let usual =
            if policy == OverLength::Error { 1 } else { self.answer.usual.unwrap_or(DEFAULT_MAX_TOKENS) };
        let (limit, taken_by) = self.limit(self.answer.asked.unwrap_or(usual) as usize);
        if ids.len() <= limit {
            return Ok(ids);
        }
        let side = match policy {
            OverLength::Left if limit > 0 => TruncateSide::Left,
            OverLength::Right if limit > 0 => TruncateSide::Right,
            _ => {
                let found = ids.len();
                let message = format!(
                    "the prompt has {found} tokens and {taken_by}: shorten it, or set truncate to left or right"
                );
                return Err(ApiError::new(ErrorCode::InputTooLong, message).about(param));
            }
        };
        Ok(self.tokenizer.truncate(ids, limit, side))
    }

    /// The policy of the adapter's card, for requests that say nothing.
    pub fn card_policy(&self) -> OverLength {
        self.adapter.and_then(|adapter| adapter.card().over_length).unwrap_or_default()
    }

    /// Most tokens that may answer a prompt of `tokens` tokens.
    ///
    /// # Errors
    /// When `max_tokens` or `min_tokens` is more than there is room for.
    pub fn answer_to(&self, tokens: usize, min_tokens: u32) -> Result<u32, ApiError> {
        let room = self.model.context.max_new_tokens(self.virtual_tokens() + tokens);
        let most = u32::try_from(room).unwrap_or(u32::MAX);
        let usual = || self.answer.usual.map_or(most, |usual| usual.min(most));
        let max_tokens = self.answer.asked.unwrap_or_else(usual);
        if !(self.answer.least..=most).contains(&max_tokens) {
            let name = &self.model.name;
            let message = format!(
                "max_tokens is {max_tokens}: model '{name}' generates {} to {most} tokens",
                self.answer.least
            );
            return Err(ApiError::invalid("max_tokens", message));
        }
        if min_tokens > max_tokens {
            let message = format!("min_tokens is {min_tokens}: use 0 to max_tokens ({max_tokens})");
            return Err(ApiError::invalid("min_tokens", message));
        }
        Ok(max_tokens)
    }

    fn virtual_tokens(&self) -> usize {
        self.adapter.map_or(0, |adapter| adapter.weights().prompt_length())
    }

    /// Most tokens of a prompt whose answer takes `new_tokens`, and who says so.
    fn limit(&self, new_tokens: usize) -> (usize, String) {
        let (name, context) = (&self.model.name, &self.model.context);
        let (virtual_tokens, rows) = (self.virtual_tokens(), context.max_prompt_rows(new_tokens));
        let left = rows.saturating_sub(virtual_tokens);
        let s = self.adapter.and_then(|adapter| Some((adapter, adapter.weights().max_length()?)));
        if let Some((adapter, s)) = s.filter(|&(_, s)| s <= left) {
            return (s, format!("adapter '{}' takes s = {s}", adapter.name()));
        }
        let mut beside = Vec::new();
        if virtual_tokens > 0 {
            beside.push(format!("{virtual_tokens} soft-prompt rows"));
        }
        if matches!(context, ContextWindow::Shared { .. }) {
            beside.push(format!("max_tokens = {new_tokens}"));
        }
        let beside =
            if beside.is_empty() { String::new() } else { format!(" beside {}", beside.join(" and ")) };
        (left, format!("model '{name}' takes {left}{beside}"))
    }
}
