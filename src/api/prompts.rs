//! From what a client wrote to token ids that fit the adapter and the model.

use super::{ApiError, ErrorCode};
use crate::{
    adapter::AdapterLease,
    domain::{ModelProfile, OverLength, Prompt},
    tokenizer::{Tokenizer, TruncateSide},
};

/// What a prompt is turned into ids with.
pub(super) struct Prompts<'a> {
    pub tokenizer: &'a Tokenizer,
    pub model: &'a ModelProfile,
    pub adapter: Option<&'a AdapterLease>,
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
        let (limit, taken_by) = self.limit();
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

    /// Most tokens of a prompt, and who says so.
    fn limit(&self) -> (usize, String) {
        let (name, rows) = (&self.model.name, self.model.max_prompt_rows);
        let Some(adapter) = self.adapter else {
            return (rows, format!("model '{name}' takes {rows}"));
        };
        let weights = adapter.weights();
        let virtual_tokens = weights.prompt_length();
        let left = rows.saturating_sub(virtual_tokens);
        match weights.max_length().filter(|&s| s <= left) {
            Some(s) => (s, format!("adapter '{}' takes s = {s}", adapter.name())),
            None => (left, format!("model '{name}' takes {left} beside {virtual_tokens} soft-prompt rows")),
        }
    }
}
