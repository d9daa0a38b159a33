//! Text to token ids and back.

mod byte_level;
mod chat_template;
mod detokenizer;
mod pieces;
mod scored;
mod spelling;
mod stop;
mod unigram;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

pub use byte_level::{ByteLevelVocabulary, Cut};
pub use chat_template::{ChatTemplate, ChatTemplateError};
pub use detokenizer::Detokenizer;
pub use pieces::{Piece, PieceKind, Pieces};
pub use scored::ScoredVocabulary;
use spelling::Spells;
pub use spelling::{Beginning, Spelling};
pub use stop::{Released, StopStrings};
pub use unigram::UnigramVocabulary;

#[cfg(test)]
mod tests;

/// Why text and ids can't be turned into each other.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file can't be read.
    #[error("can't read the tokenizer '{}': {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file isn't a tokenizer.json.
    #[error("'{}' isn't a usable tokenizer.json: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A model file's vocabulary can't serve.
    #[error("the vocabulary in the model's file can't be used: {0}")]
    Vocabulary(String),
    /// A text can't be encoded.
    #[error("the text can't be tokenized: {0}")]
    Encode(String),
}

/// Which end of a text that is too long gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TruncateSide {
    /// The beginning goes, the last tokens stay.
    Left,
    /// The end goes, the first tokens stay.
    Right,
}

/// A model's tokenizer. Cheap to clone; every clone is the same tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    chat: Option<Arc<Result<ChatTemplate, ChatTemplateError>>>,
}

#[derive(Debug)]
struct Inner {
    tokenizer: tokenizers::Tokenizer,
    /// What encoding puts before and behind every text.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    /// How its decoder spells; `None` where that depends on a piece's neighbours.
    spells: Option<Spells>,
}

impl Tokenizer {
    /// From a `tokenizer.json`. Truncation and padding that the file asks for are left out: the server
    /// bounds lengths itself.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let content =
            fs::read(path).map_err(|source| TokenizerError::Io { path: path.to_owned(), source })?;
        let malformed = |reason: String| TokenizerError::Malformed { path: path.to_owned(), reason };
        let tokenizer = guarded(|| tokenizers::Tokenizer::from_bytes(&content)).map_err(malformed)?;
        Self::new(tokenizer).map_err(malformed)
    }

    /// From a bare Unigram vocabulary, such as a GGUF file of T5 holds.
    pub fn from_unigram(vocabulary: &UnigramVocabulary) -> Result<Self, TokenizerError> {
        let tokenizer = unigram::build(vocabulary).map_err(TokenizerError::Vocabulary)?;
        Self::new(tokenizer).map_err(TokenizerError::Vocabulary)
    }

    /// From a bare byte-level vocabulary, such as GGUF files of GPT-2, Llama 3 and Qwen hold.
    pub fn from_byte_level(vocabulary: &ByteLevelVocabulary) -> Result<Self, TokenizerError> {
        let tokenizer = byte_level::build(vocabulary).map_err(TokenizerError::Vocabulary)?;
        Self::new(tokenizer).map_err(TokenizerError::Vocabulary)
    }

    /// From a bare vocabulary of scored pairs, such as a GGUF file of Gemma holds.
    pub fn from_scored(vocabulary: &ScoredVocabulary) -> Result<Self, TokenizerError> {
        let tokenizer = scored::build(vocabulary).map_err(TokenizerError::Vocabulary)?;
        Self::new(tokenizer).map_err(TokenizerError::Vocabulary)
    }

    fn new(mut tokenizer: tokenizers::Tokenizer) -> Result<Self, String> {
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
        let plain = encode(&tokenizer, "a", false)?;
        let full = encode(&tokenizer, "a", true)?;
        let before = (0..=full.len()).find(|&i| full[i..].starts_with(&plain)).unwrap_or(0);
        let behind = (before + plain.len()).min(full.len());
        let (prefix, suffix) = (full[..before].to_vec(), full[behind..].to_vec());
        let spells = tokenizer.get_decoder().and_then(Spells::of);
        Ok(Self { inner: Arc::new(Inner { tokenizer, prefix, suffix, spells }), chat: None })
    }

    /// The same tokenizer with the model's chat template, or with what is wrong with that.
    #[must_use]
    pub fn with_chat_template(self, template: Result<Option<ChatTemplate>, ChatTemplateError>) -> Self {
        Self { chat: template.transpose().map(Arc::new), ..self }
    }

    /// How the model writes conversations down; `None` where it has no form for them.
    pub fn chat_template(&self) -> Option<Result<&ChatTemplate, &ChatTemplateError>> {
        self.chat.as_deref().map(Result::as_ref)
    }

    /// The ids of a text, with the tokens that the model wants around it (T5's `</s>`).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        encode(&self.inner.tokenizer, text, true).map_err(TokenizerError::Encode)
    }

    /// The ids of a text alone, such as a label's.
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        encode(&self.inner.tokenizer, text, false).map_err(TokenizerError::Encode)
    }

    /// The text of ids; special tokens and ids outside the vocabulary say nothing. The same bytes as a
    /// [`Detokenizer`]'s pieces joined.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut detokenizer = Detokenizer::new(self.clone());
        let mut text: String = ids.iter().filter_map(|&id| detokenizer.push(id)).collect();
        text.extend(detokenizer.flush());
        text
    }

    /// The vocabulary's entry of an id, with its own marks (`▁the`, `</s>`).
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    /// The text of one token; its vocabulary entry where it has none (`</s>`).
    pub fn text_of(&self, id: u32) -> String {
        let text = self.decode(&[id]);
        if text.is_empty() { self.piece(id).unwrap_or_default() } else { text }
    }

    /// The id of a vocabulary entry.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(piece)
    }

    /// Entries of the vocabulary, added tokens too. The model's tables may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.tokenizer.get_vocab_size(true)
    }

    /// One past the largest token id. A vocabulary may have gaps below it.
    pub fn id_bound(&self) -> usize {
        let largest = self.inner.tokenizer.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// Cuts encoded text to `limit` ids, keeping the special tokens around it: T5 cut on the right keeps the
    /// first `limit - 1` ids of the text and `</s>`.
    pub fn truncate(&self, ids: Vec<u32>, limit: usize, side: TruncateSide) -> Vec<u32> {
        let Inner { prefix, suffix, .. } = &*self.inner;
        truncate(ids, limit, side, prefix, suffix)
    }

    /// Whether an id stands for text. False for special tokens and ids outside the vocabulary.
    fn is_text(&self, id: u32) -> bool {
        let tokenizer = &self.inner.tokenizer;
        let piece = tokenizer.id_to_token(id);
        piece.is_some_and(|piece| !tokenizer.get_added_vocabulary().is_special_token(&piece))
    }

    /// The library's own decoding of text ids.
    fn decode_window(&self, ids: &[u32]) -> String {
        guarded(|| self.inner.tokenizer.decode(ids, true)).unwrap_or_default()
    }
}

fn truncate(mut ids: Vec<u32>, limit: usize, side: TruncateSide, prefix: &[u32], suffix: &[u32]) -> Vec<u32> {
    if ids.len() <= limit {
        return ids;
    }
    let before = if ids.starts_with(prefix) { prefix.len() } else { 0 };
    let behind = if ids[before..].ends_with(suffix) { suffix.len() } else { 0 };
    let Some(kept) = limit.checked_sub(before + behind) else {
        return ids.split_off(ids.len() - limit);
    };
    let text = before..ids.len() - behind;
    match side {
        TruncateSide::Left => ids.drain(before..text.end - kept),
        TruncateSide::Right => ids.drain(before + kept..text.end),
    };
    ids
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str, specials: bool) -> Result<Vec<u32>, String> {
    guarded(|| tokenizer.encode_fast(text, specials)).map(|encoding| encoding.get_ids().to_vec())
}

/// Runs the library; its panics become errors. A normaliser table that lies sends it out of bounds.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|e| e.to_string()),
        Err(_) => Err("the tokenizer's own tables are inconsistent".into()),
    }
}
