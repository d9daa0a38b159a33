//! The tokenizer that lies with the weights.

use super::{Metadata, Value, Weights};
use crate::tokenizer::{Tokenizer, TokenizerError, UnigramVocabulary};

/// Token types of GGUF.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

impl Weights {
    /// The model's tokenizer: the folder's `tokenizer.json`, or T5's vocabulary in the GGUF file's metadata.
    pub fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        match &self.metadata {
            Some(metadata) => from_metadata(metadata),
            None => Tokenizer::from_file(&self.path.join("tokenizer.json")),
        }
    }
}

pub(super) fn from_metadata(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_unigram(&t5(metadata).map_err(TokenizerError::Vocabulary)?)
}

fn t5(metadata: &Metadata) -> Result<UnigramVocabulary, String> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    match metadata.text(&key("model")) {
        Some("t5") => {}
        Some(other) => return Err(format!("tokenizer.ggml.model is '{other}'; 't5' is read")),
        None => return Err("it has no tokenizer.ggml.model".into()),
    }
    let tokens = metadata.texts(&key("tokens")).ok_or("it has no texts tokenizer.ggml.tokens")?;
    let Some(Value::Floats(scores)) = metadata.get(&key("scores")) else {
        return Err("it has no floats tokenizer.ggml.scores".into());
    };
    let kinds = match metadata.get(&key("token_type")) {
        Some(Value::Ints(kinds)) => kinds.as_slice(),
        _ => &[],
    };
    let is_special = |kind: &i64| matches!(*kind, UNKNOWN | CONTROL | USER_DEFINED);
    let flag = |name: &str| metadata.bool(&key(name)).unwrap_or(true);
    let end = special(metadata, &key("eos_token_id"), 1)?;
    Ok(UnigramVocabulary {
        tokens: tokens.to_vec(),
        scores: scores.clone(),
        specials: (0..kinds.len()).filter(|&id| is_special(&kinds[id])).collect(),
        unknown: special(metadata, &key("unknown_token_id"), 2)?,
        end: flag("add_eos_token").then_some(end),
        charsmap: match metadata.get(&key("precompiled_charsmap")) {
            Some(Value::Bytes(table)) => table.clone(),
            _ => Vec::new(),
        },
        prefix_space: flag("add_space_prefix"),
        collapse_spaces: flag("remove_extra_whitespaces"),
    })
}

/// The id under `key`; SentencePiece's usual one where the file doesn't say.
fn special(metadata: &Metadata, key: &str, usual: usize) -> Result<usize, String> {
    match metadata.get(key) {
        None => Ok(usual),
        Some(Value::Int(id)) => usize::try_from(*id).map_err(|_| format!("{key} is {id}")),
        Some(other) => Err(format!("{key} is {other:?}, not an integer")),
    }
}
