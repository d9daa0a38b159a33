//! Structured output: which tokens may come next, so that a text is what its request wants.
//!
//! A grammar is compiled once for a model's vocabulary (`compile.rs`, on [llguidance](https://github.com/guidance-ai/llguidance)),
//! kept for those who ask again (`cache.rs`), and followed by each sequence for itself ([`Guide`]). The mask of the next token is
//! computed while the model runs (`helper.rs`); sampling applies it before anything else. It knows nothing of models or steps.
//!
//! What a text is, is what decoding its tokens gives: a vocabulary of sentencepiece loses the space at the beginning of a text, so
//! there a grammar is followed from behind that space (`compile.rs`). Where not every byte has a token (T5), only texts of characters
//! that have one are in the language, so that no text can lead into a dead end (`source.rs`).

mod blame;
mod cache;
mod compile;
mod guide;
mod helper;
mod source;
mod vocabulary;

pub use cache::Grammars;
pub use compile::Compiled;
pub use guide::{Guide, Progress};

use std::{collections::BTreeSet, time::Duration};

#[cfg(test)]
mod tests;

/// Why a grammar can't be followed by this model, or at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The model's vocabulary is not one that grammars can be followed with.
    #[error("this model's vocabulary can't be used with grammars: {0}")]
    Vocabulary(#[from] UnusableVocabulary),
    /// The regular expression is none, or has something in it that can't be followed.
    #[error("the regular expression can't be followed{}: {reason}", at.map(|at| format!(" from byte {at} on")).unwrap_or_default())]
    Regex {
        /// The byte at which the fault begins, where that is known.
        at: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A part of the schema is none, or has something in it that can't be followed.
    #[error("the schema can't be followed at '#{place}': {reason}")]
    Schema {
        /// JSON pointer to the innermost part that is at fault.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// There are characters in it that no token of the vocabulary writes.
    #[error("this model's vocabulary can't write {}{}", listed(characters), place.as_deref().map(|at| format!(", which '{at}' needs")).unwrap_or_default())]
    Unwritable {
        /// The part that needs them, where that is known: an index, or a JSON pointer.
        place: Option<String>,
        /// The characters.
        characters: BTreeSet<char>,
    },
    /// No text is what it wants.
    #[error("no text satisfies the grammar: what it asks for contradicts itself, or never ends")]
    Nothing,
    /// It is over a limit.
    #[error("the grammar is too complex: {reason}")]
    TooComplex {
        /// Which limit.
        reason: String,
    },
    /// Compiling it took too long.
    #[error("the grammar was not compiled within {} s: make it simpler, or send it again", within.as_secs())]
    Slow {
        /// How long the server waited.
        within: Duration,
    },
    /// Too many others are being compiled.
    #[error("the server is compiling other grammars: retry in a moment")]
    Busy,
}

/// Why a vocabulary can't be used with grammars.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableVocabulary {
    /// The decoder is of a kind whose tokens do not write the same bytes everywhere, or of an unknown one.
    #[error("its decoder is not byte-level, metaspace or byte fallback")]
    Decoder,
    /// More tokens than the trie can count.
    #[error("it is too large")]
    TooLarge,
    /// The trie can't be built.
    #[error("{0}")]
    Trie(String),
    /// No thread for it.
    #[error("the system refused a thread: {0}")]
    Thread(String),
}

impl CompileError {
    /// The part that is to blame, in the form of a field's path: `[3]`, `.properties.age`.
    pub fn part(&self) -> Option<String> {
        let dotted = |place: &str| place.replace('/', ".").replace("~1", "/").replace("~0", "~");
        match self {
            Self::Schema { place, .. } => Some(dotted(place)),
            Self::Unwritable { place, .. } => place.as_deref().map(dotted),
            _ => None,
        }
    }
}

fn listed(characters: &BTreeSet<char>) -> String {
    if characters.is_empty() {
        return "what the text must begin with".to_owned();
    }
    let shown: Vec<String> = characters.iter().take(20).map(|c| format!("{c:?}")).collect();
    let more = if characters.len() > shown.len() { ", …" } else { "" };
    shown.join(", ") + more
}
