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

impl Prompt {
    /// About how many bytes have to be read to make tokens of it; no prompt is for nothing.
    pub fn bytes(&self) -> usize {
        const EACH: usize = 32;
        let bytes = match self {
            Self::Text(text) => text.len(),
            Self::Ids(ids) => ids.len(),
            Self::Inputs(fields) => fields.iter().map(|(name, text)| EACH + name.len() + text.len()).sum(),
            Self::Chat(messages) => messages.iter().map(|message| EACH + message.content.len()).sum(),
        };
        EACH + bytes
    }
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

impl GenerateRequest {
    /// Whether it is a matter of microseconds to get it ready: short texts, and no grammar to be compiled.
    pub fn is_light(&self) -> bool {
        self.grammar.is_none() && are_light(&self.prompts)
    }
}

impl ClassifyRequest {
    /// Whether it is a matter of microseconds to get it ready: short texts and labels.
    pub fn is_light(&self) -> bool {
        let labels: usize = self.labels.iter().flatten().map(String::len).sum();
        labels <= LIGHT && are_light(&self.prompts)
    }
}

/// Bytes that become tokens in about the time that a hop between two threads takes.
const LIGHT: usize = 1024;

fn are_light(prompts: &[Prompt]) -> bool {
    prompts.iter().map(Prompt::bytes).sum::<usize>() <= LIGHT
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn light_is_what_is_read_in_microseconds() {
        let text = |len: usize| Prompt::Text("x".repeat(len));
        let fields = |len: usize| Prompt::Inputs([("sentence".to_owned(), "x".repeat(len))].into());
        assert!(are_light(&[text(0)]) && are_light(&[text(900)]) && are_light(&[fields(900)]));
        assert!(
            !are_light(&[text(1024)]) && !are_light(&[text(600), text(600)]) && !are_light(&[fields(1000)])
        );
        assert!(!are_light(&[Prompt::Ids(vec![1; 2000])]));
        assert!(!are_light(&vec![text(0); 40]), "many prompts are work even where each is nothing");
    }
}
