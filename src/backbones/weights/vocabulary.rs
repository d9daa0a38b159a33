//! The tokenizer that lies with the weights.

use super::{Metadata, Value, Weights};
use crate::tokenizer::{
    ByteLevelVocabulary, ChatTemplate, ChatTemplateError, Cut, Piece, PieceKind, Pieces, ScoredVocabulary,
    Tokenizer, TokenizerError, UnigramVocabulary,
};

/// Token types of GGUF.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;

impl Weights {
    /// The model's tokenizer: the folder's `tokenizer.json`, or the vocabulary in the GGUF file's metadata.
    pub fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        match &self.metadata {
            Some(metadata) => from_metadata(metadata),
            None => Tokenizer::from_file(&self.path.join("tokenizer.json")),
        }
    }

    /// The model's chat template: the folder's, or the one in the GGUF file's metadata.
    ///
    /// # Errors
    /// When there is one that can't be used.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, ChatTemplateError> {
        match &self.metadata {
            Some(metadata) => chat_template(metadata),
            None => ChatTemplate::from_folder(&self.path),
        }
    }
}

pub(super) fn chat_template(metadata: &Metadata) -> Result<Option<ChatTemplate>, ChatTemplateError> {
    let Some(source) = metadata.text("tokenizer.chat_template") else { return Ok(None) };
    let tokens = metadata.texts("tokenizer.ggml.tokens").unwrap_or_default();
    // The last one is spelt so in the format.
    let named =
        [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"), ("sep", "seperator")];
    let specials = named.iter().filter_map(|(name, key)| {
        let id = metadata.int(&format!("tokenizer.ggml.{key}_token_id"))?;
        Some((format!("{name}_token"), tokens.get(id)?.clone()))
    });
    ChatTemplate::new(source, specials.collect()).map(Some)
}

pub(super) fn from_metadata(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
    let keys = Keys(metadata);
    match metadata.text("tokenizer.ggml.model") {
        Some("t5") => Tokenizer::from_unigram(&unigram(keys).map_err(TokenizerError::Vocabulary)?),
        Some("gpt2") => Tokenizer::from_byte_level(&byte_level(keys).map_err(TokenizerError::Vocabulary)?),
        Some("llama") => Tokenizer::from_scored(&scored(keys).map_err(TokenizerError::Vocabulary)?),
        Some(other) => Err(TokenizerError::Vocabulary(format!(
            "tokenizer.ggml.model is '{other}'; 't5', 'gpt2' and 'llama' are read"
        ))),
        None => Err(TokenizerError::Vocabulary("it has no tokenizer.ggml.model".into())),
    }
}

/// What a file says under `tokenizer.ggml.`.
#[derive(Clone, Copy)]
struct Keys<'a>(&'a Metadata);

impl<'a> Keys<'a> {
    fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(&format!("tokenizer.ggml.{name}"))
    }

    fn tokens(self) -> Result<&'a [String], String> {
        self.0.texts("tokenizer.ggml.tokens").ok_or_else(|| "it has no texts tokenizer.ggml.tokens".into())
    }

    fn scores(self) -> Result<&'a [f64], String> {
        match self.get("scores") {
            Some(Value::Floats(scores)) => Ok(scores),
            _ => Err("it has no floats tokenizer.ggml.scores".into()),
        }
    }

    fn kinds(self) -> &'a [i64] {
        match self.get("token_type") {
            Some(Value::Ints(kinds)) => kinds,
            _ => &[],
        }
    }

    fn flag(self, name: &str, usual: bool) -> bool {
        self.0.bool(&format!("tokenizer.ggml.{name}")).unwrap_or(usual)
    }

    /// The id under `name`; the usual one, where there is one and the file doesn't say.
    fn id(self, name: &str, usual: Option<usize>) -> Result<usize, String> {
        let name = format!("tokenizer.ggml.{name}");
        match (self.0.get(&name), usual) {
            (None, Some(usual)) => Ok(usual),
            (None, None) => Err(format!("it has no {name}")),
            (Some(Value::Int(id)), _) => usize::try_from(*id).map_err(|_| format!("{name} is {id}")),
            (Some(other), _) => Err(format!("{name} is {other:?}, not an integer")),
        }
    }

    /// All tokens, with a beginning and an end where the file asks for them, or where it is usual.
    fn pieces(self, begins: Usual, ends: Usual) -> Result<Pieces, String> {
        let tokens = self.tokens()?;
        let kinds = self.kinds();
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            return Err(format!("it has {} tokens, but {} types", tokens.len(), kinds.len()));
        }
        let kind_of = |id: usize| match kinds.get(id) {
            Some(&(UNKNOWN | CONTROL)) => PieceKind::Special,
            Some(&USER_DEFINED) => PieceKind::Added,
            Some(&UNUSED) => PieceKind::Unused,
            Some(&BYTE) => PieceKind::Byte,
            _ => PieceKind::Normal,
        };
        let piece = |(id, text): (usize, &String)| Piece { text: text.clone(), kind: kind_of(id) };
        let named = |flag: &str, name: &str, usual: Usual| {
            self.flag(flag, usual.wanted).then(|| self.id(name, usual.id)).transpose()
        };
        Ok(Pieces {
            list: tokens.iter().enumerate().map(piece).collect(),
            begin: named("add_bos_token", "bos_token_id", begins)?,
            end: named("add_eos_token", "eos_token_id", ends)?,
        })
    }
}

/// What a kind of vocabulary puts at an end of every text, where a file doesn't say.
#[derive(Clone, Copy)]
struct Usual {
    wanted: bool,
    id: Option<usize>,
}

/// T5's.
fn unigram(keys: Keys<'_>) -> Result<UnigramVocabulary, String> {
    let kinds = keys.kinds();
    let is_special = |kind: &i64| matches!(*kind, UNKNOWN | CONTROL | USER_DEFINED);
    let end = keys.id("eos_token_id", Some(1))?;
    Ok(UnigramVocabulary {
        tokens: keys.tokens()?.to_vec(),
        scores: keys.scores()?.to_vec(),
        specials: (0..kinds.len()).filter(|&id| is_special(&kinds[id])).collect(),
        unknown: keys.id("unknown_token_id", Some(2))?,
        end: keys.flag("add_eos_token", true).then_some(end),
        charsmap: match keys.get("precompiled_charsmap") {
            Some(Value::Bytes(table)) => table.clone(),
            _ => Vec::new(),
        },
        prefix_space: keys.flag("add_space_prefix", true),
        collapse_spaces: keys.flag("remove_extra_whitespaces", true),
    })
}

/// GPT-2's, SmolLM2's, Llama 3's and Qwen's: how text is cut is told by a name.
fn byte_level(keys: Keys<'_>) -> Result<ByteLevelVocabulary, String> {
    let cut = match keys.get("pre") {
        Some(Value::Text(name)) => match name.as_str() {
            "gpt-2" => Cut::Gpt2,
            "smollm" => Cut::SmolLm,
            "llama-bpe" | "llama3" | "llama-v3" => Cut::Llama3,
            "qwen2" | "deepseek-r1-qwen" => Cut::Qwen2,
            other => {
                let known = "'gpt-2', 'smollm', 'llama-bpe' and 'qwen2'";
                return Err(format!("tokenizer.ggml.pre is '{other}'; {known} are read"));
            }
        },
        _ => return Err("it has no tokenizer.ggml.pre: convert the model with a current llama.cpp".into()),
    };
    let Some(Value::Texts(merges)) = keys.get("merges") else {
        return Err("it has no texts tokenizer.ggml.merges".into());
    };
    let pair = |(rank, merge): (usize, &String)| match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err(format!("merge {rank} is '{merge}', not two tokens with a space between")),
    };
    let begins = Usual { wanted: cut == Cut::Llama3, id: None };
    Ok(ByteLevelVocabulary {
        pieces: keys.pieces(begins, Usual { wanted: false, id: None })?,
        merges: merges.iter().enumerate().map(pair).collect::<Result<_, _>>()?,
        cut,
    })
}

/// Gemma's and the first Llamas'.
fn scored(keys: Keys<'_>) -> Result<ScoredVocabulary, String> {
    let (begins, ends) = (Usual { wanted: true, id: Some(1) }, Usual { wanted: false, id: Some(2) });
    Ok(ScoredVocabulary {
        pieces: keys.pieces(begins, ends)?,
        scores: keys.scores()?.to_vec(),
        unknown: keys.id("unknown_token_id", Some(0))?,
        prefix_space: keys.flag("add_space_prefix", true),
    })
}
