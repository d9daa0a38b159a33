//! GPT-2's kind of tokenizer from a bare vocabulary: pairs over an alphabet of bytes. Families differ in how text is cut
//! before pairs are merged.

use tokenizers::{
    SplitDelimiterBehavior, Tokenizer,
    models::bpe::BPE,
    normalizers::NFC,
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::Pieces;

/// Words with the sign before them, digits in threes, runs of other signs, line ends, spaces.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with single digits.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a family cuts text before pairs are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// GPT-2's own.
    Gpt2,
    /// GPT-2's, single digits.
    SmolLm,
    /// Llama 3's; a word that is in the vocabulary is taken whole, whatever the merges say.
    Llama3,
    /// Qwen's, on composed characters (NFC).
    Qwen2,
}

/// A byte-level vocabulary, as files other than `tokenizer.json` carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteLevelVocabulary {
    /// The tokens, spelt in the byte alphabet.
    pub pieces: Pieces,
    /// The pairs that are merged, in order of rank.
    pub merges: Vec<(String, String)>,
    /// How text is cut first.
    pub cut: Cut,
}

impl Cut {
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

/// The error says what is wrong with the vocabulary.
pub(super) fn build(vocabulary: &ByteLevelVocabulary) -> Result<Tokenizer, String> {
    let ByteLevelVocabulary { pieces, merges, cut } = vocabulary;
    let model = BPE::builder()
        .vocab_and_merges(pieces.vocabulary()?, merges.clone())
        .ignore_merges(*cut == Cut::Llama3)
        .build()
        .map_err(|e| e.to_string())?;
    let mut tokenizer = Tokenizer::new(model);
    if *cut == Cut::Qwen2 {
        tokenizer.with_normalizer(Some(NFC)).map_err(|e| e.to_string())?;
    }
    tokenizer.with_pre_tokenizer(Some(cut.pre_tokenizer()?));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    pieces.finish(&mut tokenizer)?;
    Ok(tokenizer)
}
