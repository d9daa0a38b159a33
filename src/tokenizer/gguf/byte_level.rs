//! GPT-2's kind: byte pairs over an alphabet of bytes. Families differ in how text is cut before pairs are merged, which a
//! file says by a name.

use tokenizers::{
    SplitDelimiterBehavior, Tokenizer,
    models::bpe::{BPE, Vocab},
    normalizers::NFC,
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::{CONTROL, Ends, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary};
use crate::backbones::weights::Value;

/// Llama 3's cut: words with the sign before them, digits in threes, runs of other signs, line ends, spaces.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen's: the same with single digits.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a family cuts text.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    Gpt2,
    SmolLm,
    Llama3,
    Qwen2,
}

impl Cut {
    fn of(vocabulary: &Vocabulary<'_>) -> Result<Self, String> {
        match vocabulary.get("pre") {
            Some(Value::Text(name)) => match name.as_str() {
                "gpt-2" => Ok(Self::Gpt2),
                "smollm" => Ok(Self::SmolLm),
                "llama-bpe" | "llama3" | "llama-v3" => Ok(Self::Llama3),
                "qwen2" | "deepseek-r1-qwen" => Ok(Self::Qwen2),
                other => Err(format!(
                    "tokenizer.ggml.pre is '{other}'; 'gpt-2', 'smollm', 'llama-bpe' and 'qwen2' are read"
                )),
            },
            _ => {
                Err("it has no text tokenizer.ggml.pre: convert the model again with a current llama.cpp"
                    .into())
            }
        }
    }

    fn pre_tokenizer(self) -> Result<Sequence, String> {
        let split = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|e| e.to_string())
        };
        let own_cut = matches!(self, Self::Gpt2 | Self::SmolLm);
        let bytes = PreTokenizerWrapper::from(ByteLevel::new(false, true, own_cut));
        Ok(Sequence::new(match self {
            Self::Gpt2 => vec![bytes],
            Self::SmolLm => vec![Digits::new(true).into(), bytes],
            Self::Llama3 => vec![split(LLAMA_3)?.into(), bytes],
            Self::Qwen2 => vec![split(QWEN_2)?.into(), bytes],
        }))
    }
}

pub(super) fn build(vocabulary: &Vocabulary<'_>) -> Result<Tokenizer, String> {
    let cut = Cut::of(vocabulary)?;
    let model = BPE::builder()
        .vocab_and_merges(pieces(vocabulary)?, merges(vocabulary)?)
        // Llama 3 takes a word that is in the vocabulary whole, whatever its merges say.
        .ignore_merges(cut == Cut::Llama3)
        .build()
        .map_err(|e| e.to_string())?;
    let mut tokenizer = Tokenizer::new(model);
    if cut == Cut::Qwen2 {
        tokenizer.with_normalizer(Some(NFC)).map_err(|e| e.to_string())?;
    }
    tokenizer.with_pre_tokenizer(Some(cut.pre_tokenizer()?));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    for token in vocabulary.added(&[UNKNOWN, CONTROL], &[USER_DEFINED]) {
        let added =
            if token.special { tokenizer.add_special_tokens([token]) } else { tokenizer.add_tokens([token]) };
        added.map_err(|e| e.to_string())?;
    }
    let ends = Ends { add_bos: cut == Cut::Llama3, bos: None, add_eos: false, eos: None };
    vocabulary.surround(&mut tokenizer, ends)?;
    Ok(tokenizer)
}

/// Every token in use, with its id.
fn pieces(vocabulary: &Vocabulary<'_>) -> Result<Vocab, String> {
    let mut pieces = Vocab::with_capacity(vocabulary.tokens.len());
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if vocabulary.kind(id) == UNUSED {
            continue;
        }
        if let Some(first) = pieces.insert(token.clone(), id as u32) {
            return Err(format!("the tokens {first} and {id} are both '{token}'"));
        }
    }
    Ok(pieces)
}

/// The pairs, in order of rank.
fn merges(vocabulary: &Vocabulary<'_>) -> Result<Vec<(String, String)>, String> {
    let Some(Value::Texts(merges)) = vocabulary.get("merges") else {
        return Err("it has no array of texts tokenizer.ggml.merges".into());
    };
    let pair = |(rank, merge): (usize, &String)| match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err(format!("merge {rank} is '{merge}', not two tokens with a space between")),
    };
    merges.iter().enumerate().map(pair).collect()
}
