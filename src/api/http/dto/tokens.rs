use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::request::{PromptField, inputs, prompts};
use crate::{
    api::{ApiError, Tokens},
    domain::{AdapterRef, Prompt},
};

/// The body of `POST /v1/tokenize`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizeBody {
    /// The text. Either this or `inputs`.
    #[schema(example = "sentence: a gripping story")]
    pub prompt: Option<String>,
    /// Named fields for the template of the adapter's card.
    #[serde(default, deserialize_with = "inputs")]
    pub inputs: Option<BTreeMap<String, String>>,
    /// The adapter whose template takes `inputs`.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,63}(@(sha256:)?[0-9a-f]{12,64})?$")]
    pub adapter: Option<String>,
}

impl TokenizeBody {
    /// The adapter and the prompt, checked.
    pub fn read(self) -> Result<(Option<AdapterRef>, Prompt), ApiError> {
        let adapter = self.adapter.as_deref().map(str::parse).transpose()?;
        let mut prompts = prompts(self.prompt.map(PromptField::Text), self.inputs)?;
        Ok((adapter, prompts.swap_remove(0)))
    }
}

/// The answer of `POST /v1/tokenize`.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenizeResponse {
    /// Token ids, the tokenizer's own included.
    #[schema(example = json!([7142, 10, 3, 9, 1]))]
    pub ids: Vec<u32>,
    /// The vocabulary's entries, one for each id.
    #[schema(example = json!(["▁sentence", ":", "▁", "a", "</s>"]))]
    pub pieces: Vec<String>,
    /// How many there are.
    #[schema(example = 5)]
    pub count: usize,
}

impl From<Tokens> for TokenizeResponse {
    fn from(tokens: Tokens) -> Self {
        Self { count: tokens.ids.len(), ids: tokens.ids, pieces: tokens.pieces }
    }
}

/// The body of `POST /v1/detokenize`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DetokenizeBody {
    /// Token ids.
    #[schema(example = json!([7142, 10, 3, 9, 1]))]
    pub ids: Vec<u32>,
}

/// The answer of `POST /v1/detokenize`.
#[derive(Debug, Serialize, ToSchema)]
pub struct DetokenizeResponse {
    /// The text, special tokens left out.
    #[schema(example = "sentence: a")]
    pub text: String,
}
