mod brute;
mod cached;
mod languages;
mod refusals;
mod vocabularies;

use std::{path::Path, sync::Arc};

use super::{CompileError, Compiled, Guide, Progress, helper::Helper, vocabulary::Vocabulary};
use crate::{
    domain::{Choices, Grammar, Pattern, Schema},
    tokenizer::{Beginning, Spelling, Tokenizer},
};

/// The end token of the vocabularies here.
const END: u32 = 0;

fn choice(texts: &[&str]) -> Grammar {
    Grammar::Choice(Choices::new(texts.iter().map(|&text| text.to_owned()).collect()).unwrap())
}

fn regex(pattern: &str) -> Grammar {
    Grammar::Regex(Pattern::new(pattern).unwrap())
}

fn schema(schema: serde_json::Value) -> Grammar {
    Grammar::JsonSchema(Schema::new(&schema.to_string()).unwrap())
}

/// A vocabulary of these words behind the end token.
fn vocabulary(words: &[&str], beginning: Beginning) -> Arc<Vocabulary> {
    let words: Vec<Vec<u8>> = std::iter::once("").chain(words.iter().copied()).map(Into::into).collect();
    let size = words.len();
    Arc::new(Vocabulary::new(Spelling { words, beginning }, size, &[END]).unwrap())
}

/// A token a byte, behind the end token.
fn bytes() -> Arc<Vocabulary> {
    let words: Vec<Vec<u8>> =
        std::iter::once(Vec::new()).chain((0..=u8::MAX).map(|byte| vec![byte])).collect();
    Arc::new(Vocabulary::new(Spelling { words, beginning: Beginning::AsIs }, 257, &[END]).unwrap())
}

/// The vocabulary of the model that ships with the server.
fn embedded() -> Arc<Vocabulary> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/flan-t5-small-en/tokenizer.json");
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    Arc::new(Vocabulary::new(tokenizer.spelling().unwrap(), tokenizer.id_bound(), &[1]).unwrap())
}

fn compile(grammar: &Grammar, vocabulary: &Arc<Vocabulary>) -> Result<Arc<Compiled>, CompileError> {
    Compiled::new(grammar, vocabulary, &Helper::spawn().unwrap()).map(Arc::new)
}

/// The tokens that a mask allows.
fn allowed(mask: &[u32], size: usize) -> Vec<u32> {
    (0..size as u32).filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
}

/// Writes `text` by the byte tokens of [`bytes`]; whether it may stand there and may end there. `None` where it may not
/// even begin so.
fn writes(grammar: &Grammar, text: &str) -> Option<bool> {
    let compiled = compile(grammar, &bytes()).unwrap();
    let mut guide = Guide::new(compiled);
    for byte in text.bytes() {
        let token = u32::from(byte) + 1;
        if !allowed(guide.mask().ok()?, 257).contains(&token) {
            return None;
        }
        if guide.advance(token).unwrap() == Progress::Whole {
            // A byte behind it would find only the end.
            continue;
        }
    }
    Some(allowed(guide.mask().ok()?, 257).contains(&END))
}
