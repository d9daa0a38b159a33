//! Tokenizers from GGUF metadata, each built as its model's published `tokenizer.json` is.

mod byte_level;
mod sentencepiece;
mod unigram;

use tokenizers::{AddedToken, Tokenizer, processors::template::TemplateProcessing};

use crate::backbones::weights::{Metadata, Value};

/// Token types of the format.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;

/// What stands for a space in sentencepiece vocabularies.
const SPACE: char = '▁';

/// The error says what is missing or wrong.
pub(super) fn build(metadata: &Metadata) -> Result<Tokenizer, String> {
    let vocabulary = Vocabulary::of(metadata)?;
    match metadata.text("tokenizer.ggml.model") {
        Some("t5") => unigram::build(&vocabulary),
        Some("gpt2") => byte_level::build(&vocabulary),
        Some("llama") => sentencepiece::build(&vocabulary),
        Some(other) => Err(format!("tokenizer.ggml.model is '{other}'; 't5', 'gpt2' and 'llama' are read")),
        None => Err("it has no tokenizer.ggml.model".into()),
    }
}

/// What a kind of tokenizer puts around texts where the file doesn't say.
#[derive(Clone, Copy)]
struct Ends {
    add_bos: bool,
    bos: Option<usize>,
    add_eos: bool,
    eos: Option<usize>,
}

/// The tokens of a file and what else it says about them.
struct Vocabulary<'a> {
    metadata: &'a Metadata,
    tokens: &'a [String],
    /// As long as `tokens`, or empty.
    types: &'a [i64],
}

impl<'a> Vocabulary<'a> {
    fn of(metadata: &'a Metadata) -> Result<Self, String> {
        let tokens = metadata.texts("tokenizer.ggml.tokens").ok_or("it has no tokenizer.ggml.tokens")?;
        let types = match metadata.get("tokenizer.ggml.token_type") {
            Some(Value::Ints(types)) if types.len() == tokens.len() => types.as_slice(),
            None => &[],
            Some(_) => {
                return Err(format!(
                    "tokenizer.ggml.token_type isn't one for each of {} tokens",
                    tokens.len()
                ));
            }
        };
        if u32::try_from(tokens.len()).is_err() {
            return Err(format!("{} tokens are more than ids", tokens.len()));
        }
        Ok(Self { metadata, tokens, types })
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.metadata.get(&format!("tokenizer.ggml.{key}"))
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.metadata.bool(&format!("tokenizer.ggml.{key}")).unwrap_or(default)
    }

    /// The type of a token.
    fn kind(&self, id: usize) -> i64 {
        self.types.get(id).copied().unwrap_or(1)
    }

    /// The id under a key, inside the vocabulary.
    fn special(&self, key: &str, default: Option<usize>) -> Result<usize, String> {
        let id = match self.get(key) {
            None => default.ok_or_else(|| format!("it has no tokenizer.ggml.{key}"))?,
            Some(Value::Int(id)) => usize::try_from(*id).unwrap_or(usize::MAX),
            Some(other) => return Err(format!("{key} is {other:?}, not an integer")),
        };
        if id < self.tokens.len() {
            Ok(id)
        } else {
            Err(format!("{key} is {id}, but there are {} tokens", self.tokens.len()))
        }
    }

    /// One finite score a token.
    fn scores(&self) -> Result<&'a [f64], String> {
        let Some(Value::Floats(scores)) = self.get("scores") else {
            return Err("it has no array of floats tokenizer.ggml.scores".into());
        };
        if scores.len() != self.tokens.len() {
            return Err(format!("it has {} tokens, but {} scores", self.tokens.len(), scores.len()));
        }
        match scores.iter().position(|score| !score.is_finite()) {
            Some(i) => Err(format!("the score of token {i} is {}", scores[i])),
            None => Ok(scores),
        }
    }

    /// Tokens that are matched in text as they stand, before the model sees it: special ones say nothing when decoded.
    fn added(&self, special: &[i64], plain: &[i64]) -> Vec<AddedToken> {
        let kinds = self.tokens.iter().zip(self.types);
        let listed = kinds.filter(|(_, kind)| special.contains(kind) || plain.contains(kind));
        listed
            .map(|(token, kind)| AddedToken::from(token.clone(), special.contains(kind)).normalized(false))
            .collect()
    }

    /// Puts the file's first and last token around every text, where it asks for them.
    fn surround(&self, tokenizer: &mut Tokenizer, ends: Ends) -> Result<(), String> {
        let named = |wanted: bool, key: &str, default| wanted.then(|| self.special(key, default)).transpose();
        let begin = named(self.flag("add_bos_token", ends.add_bos), "bos_token_id", ends.bos)?;
        let end = named(self.flag("add_eos_token", ends.add_eos), "eos_token_id", ends.eos)?;
        let text = |id: Option<usize>| id.map(|id| self.tokens[id].as_str());
        let parts: Vec<&str> = [text(begin), Some("$A"), text(end)].into_iter().flatten().collect();
        if parts.len() == 1 {
            return Ok(());
        }
        let specials = [begin, end].into_iter().flatten().map(|id| (self.tokens[id].clone(), id as u32));
        let template = TemplateProcessing::builder()
            .try_single(parts)
            .map_err(|e| e.to_string())?
            .special_tokens(specials.collect::<Vec<_>>())
            .build()
            .map_err(|e| e.to_string())?;
        tokenizer.with_post_processor(Some(template));
        Ok(())
    }
}
