use std::{collections::BTreeMap, time::Duration};

use super::{AdapterRef, ChatMessage, Grammar, SamplingParams, TenantId};

/// What the model is to read.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Text, tokenised by the server.
    Text(String),
    /// Token ids, used as they are (the client writes the end token where the model wants one).
    Ids(Vec<u32>),
    /// Named fields for the template of the adapter's card.
    Inputs(BTreeMap<String, String>),
    /// A conversation, written down by the model's chat template. Never empty.
    Chat(Vec<ChatMessage>),
}

/// What to do with a prompt longer than the adapter or the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverLength {
    /// Refuse it and say both lengths.
    #[default]
    Error,
    /// Drop tokens from the start.
    Left,
    /// Drop tokens from the end, the end token kept.
    Right,
}

/// A checked request to generate text: everything in it is legal on its own.
/// Whether it fits the adapter and the model is decided by the service that runs it.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// Who asks.
    pub tenant: TenantId,
    /// The adapter to apply; `None` is the bare backbone.
    pub adapter: Option<AdapterRef>,
    /// One result for each, in order. Never empty.
    pub prompts: Vec<Prompt>,
    /// Most tokens to generate; the card's value when absent. 0 where only the prompts are to be scored.
    pub max_tokens: Option<u32>,
    /// What holds where neither the request nor the card says how much, as far as there is room; `None` is all the room.
    pub usual_tokens: Option<u32>,
    /// Whether the tokens of the prompts are scored too, which a decoder-only model can do.
    pub scores_prompts: bool,
    /// No end token before this many tokens.
    pub min_tokens: u32,
    /// How a token is drawn.
    pub sampling: SamplingParams,
    /// Generation ends in front of any of these.
    pub stop: Vec<String>,
    /// What the text must be; `None` is any text.
    pub grammar: Option<Grammar>,
    /// Choices for each prompt, at least 1.
    pub n: u32,
    /// Policy for prompts over the limit; the card's value or `Error` when absent.
    pub truncate: Option<OverLength>,
    /// Larger runs earlier.
    pub priority: i32,
    /// Give up after this long; `None` waits.
    pub timeout: Option<Duration>,
}

/// What a classification is asked to do. Everything in it is legal for some model.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifyRequest {
    /// Who asks.
    pub tenant: TenantId,
    /// The adapter to apply; `None` is the bare backbone.
    pub adapter: Option<AdapterRef>,
    /// One result for each, in order. Never empty.
    pub prompts: Vec<Prompt>,
    /// The texts to choose among, at least two and all different; the card's when absent.
    pub labels: Option<Vec<String>>,
    /// How labels of several tokens are weighed.
    pub normalize: Normalize,
    /// Whether what a prompt without content would score is taken off (contextual calibration).
    pub calibrate: bool,
    /// Policy for prompts over the limit; the card's value or `Error` when absent.
    pub truncate: Option<OverLength>,
    /// Larger runs earlier.
    pub priority: i32,
    /// Give up after this long; `None` waits.
    pub timeout: Option<Duration>,
}

/// How the log-likelihoods of labels with different numbers of tokens are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Normalize {
    /// As they are: the probability of the whole label.
    #[default]
    None,
    /// Divided by the number of tokens, the end token counted.
    Length,
}
