use serde::Deserialize;

use crate::domain::{AdapterName, NameError};

/// Why a text is not a pattern of adapter names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A star that is not the end.
    #[error("'{0}' has a '*' before its end: write a name, or the start of names and one '*'")]
    Star(String),
    /// Not a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// One line of an allow list: a name, or the start of names and a `*`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum AdapterPattern {
    /// This adapter.
    Exact(AdapterName),
    /// Every adapter whose name starts so.
    Prefix(String),
}

impl AdapterPattern {
    fn matches(&self, name: &AdapterName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(start) => name.as_str().starts_with(start),
        }
    }
}

impl TryFrom<String> for AdapterPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        match text.split_once('*') {
            None => Ok(Self::Exact(text.parse()?)),
            Some((_, rest)) if !rest.is_empty() => Err(PatternError::Star(text)),
            Some(("", _)) => Ok(Self::Prefix(String::new())),
            // The start of a legal name is a legal name.
            Some((start, _)) => Ok(Self::Prefix(start.parse::<AdapterName>()?.as_str().to_owned())),
        }
    }
}

/// The adapters that a tenant may use, among those that it can see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AllowList {
    /// All of them.
    #[default]
    Every,
    /// Those that match a pattern.
    Only(Vec<AdapterPattern>),
}

impl AllowList {
    /// Whether `name` is among them.
    pub fn contains(&self, name: &AdapterName) -> bool {
        match self {
            Self::Every => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
        }
    }
}
