//! What a generated text must look like, as a request says it.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Most bytes of a JSON schema, written without spaces.
pub const MAX_SCHEMA_BYTES: usize = 128 << 10;
/// Most bytes of a regular expression.
pub const MAX_REGEX_BYTES: usize = 8 << 10;
/// Most texts of a choice.
pub const MAX_CHOICES: usize = 10_000;
/// Most bytes of all texts of a choice.
pub const MAX_CHOICE_BYTES: usize = 256 << 10;

/// What a generated text must be, from its first character to its last. Everything in it is legal on its own; whether it can be
/// compiled, and written with the model's vocabulary, is found out by the service that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grammar {
    /// A JSON object, whatever it holds.
    JsonObject,
    /// JSON that a schema describes.
    JsonSchema(Schema),
    /// A text that a regular expression matches as a whole.
    Regex(Pattern),
    /// One of some texts.
    Choice(Choices),
}

/// A JSON schema. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(Arc<str>);

/// A regular expression. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Arc<str>);

/// Texts to choose among: at least one, none empty, all different. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices(Arc<[String]>);

/// A grammar that no model could follow, or one that is too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It is larger than what is taken.
    #[error("it has {found} {unit} and {most} are taken")]
    TooLarge {
        /// What it has.
        found: usize,
        /// Bytes, texts.
        unit: &'static str,
        /// What it may have.
        most: usize,
    },
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// A text to choose is empty.
    #[error("text {at} is empty")]
    EmptyChoice {
        /// Its place, from 0.
        at: usize,
    },
    /// A text to choose is there twice.
    #[error("text {at} is the same as text {first}: '{text}'")]
    SameChoice {
        /// The later place, from 0.
        at: usize,
        /// The earlier place.
        first: usize,
        /// The text.
        text: String,
    },
    /// The text is not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// The JSON is no schema.
    #[error("a schema is an object, or true or false")]
    NotSchema,
}

impl GrammarError {
    /// The place in a list that is to blame.
    pub fn at(&self) -> Option<usize> {
        match self {
            Self::EmptyChoice { at } | Self::SameChoice { at, .. } => Some(*at),
            _ => None,
        }
    }
}

impl Schema {
    /// Reads a schema from JSON text. The order of its properties is kept: objects are written in it.
    ///
    /// # Errors
    /// Text that is not JSON, nests over 127 deep, or is neither an object nor a boolean; or is too large.
    pub fn new(json: &str) -> Result<Self, GrammarError> {
        let value: serde_json::Value =
            serde_json::from_str(json).map_err(|error| GrammarError::NotJson(error.to_string()))?;
        if !value.is_object() && !value.is_boolean() {
            return Err(GrammarError::NotSchema);
        }
        let text = value.to_string();
        bounded(text.len(), "bytes", MAX_SCHEMA_BYTES)?;
        Ok(Self(text.into()))
    }

    /// The schema as JSON, without spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Pattern {
    /// Takes an expression in the syntax of the `regex` crate; whether it is one is not looked at here.
    ///
    /// # Errors
    /// When it is empty or too large.
    pub fn new(regex: &str) -> Result<Self, GrammarError> {
        bounded(regex.len(), "bytes", MAX_REGEX_BYTES)?;
        if regex.is_empty() { Err(GrammarError::Empty) } else { Ok(Self(regex.into())) }
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Choices {
    /// Takes the texts.
    ///
    /// # Errors
    /// When there are none or too many, or one is empty or there twice.
    pub fn new(texts: Vec<String>) -> Result<Self, GrammarError> {
        if texts.is_empty() {
            return Err(GrammarError::Empty);
        }
        bounded(texts.len(), "texts", MAX_CHOICES)?;
        bounded(texts.iter().map(String::len).sum(), "bytes", MAX_CHOICE_BYTES)?;
        let mut places = std::collections::HashMap::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            if text.is_empty() {
                return Err(GrammarError::EmptyChoice { at });
            }
            if let Some(first) = places.insert(text.as_str(), at) {
                return Err(GrammarError::SameChoice { at, first, text: text.clone() });
            }
        }
        Ok(Self(texts.into()))
    }

    /// The texts, in the client's order.
    pub fn texts(&self) -> &[String] {
        &self.0
    }
}

impl Grammar {
    /// SHA-256 of what it says: two grammars of one digest are the same.
    pub fn digest(&self) -> [u8; 32] {
        let (kind, parts): (u8, Vec<&str>) = match self {
            Self::JsonObject => (0, Vec::new()),
            Self::JsonSchema(schema) => (1, vec![schema.as_str()]),
            Self::Regex(pattern) => (2, vec![pattern.as_str()]),
            Self::Choice(choices) => (3, choices.texts().iter().map(String::as_str).collect()),
        };
        let mut hash = Sha256::new_with_prefix([kind]);
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

fn bounded(found: usize, unit: &'static str, most: usize) -> Result<(), GrammarError> {
    if found <= most { Ok(()) } else { Err(GrammarError::TooLarge { found, unit, most }) }
}
