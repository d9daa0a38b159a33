//! A model's vocabulary as grammars see it: a trie over the bytes that its tokens write.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive};

use llguidance::{
    ParserFactory,
    api::ParserLimits,
    earley::SlicedBiasComputer,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie},
};

use super::UnusableVocabulary;
use crate::tokenizer::Spelling;

/// Longest token that the trie holds; longer ones (a run of spaces, as a rule) are left to text without a grammar.
const MAX_WORD: usize = 512;

/// What one step, and one compilation, may cost: a client's grammar must not hold up its neighbours. The step's limits are about
/// ten milliseconds of computing, the states' 64 MiB of memory, on a machine of 2024; schemas of a thousand properties and
/// choices of ten thousand texts stay below.
pub(super) const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 10_000,
    initial_lexer_fuel: 1_000_000,
    step_lexer_fuel: 150_000,
    step_max_items: 50_000,
    max_lexer_states: 50_000,
    max_grammar_size: 200_000,
    precompute_large_lexemes: false,
    verbose_errors: false,
};

/// What is built once for a model.
pub(super) struct Vocabulary {
    factory: ParserFactory,
    /// A vocabulary of single bytes: tells which characters a grammar wants where the real one has none.
    bytes: ParserFactory,
    pub spelling: Spelling,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    pub alphabet: Alphabet,
}

/// The characters that can be written wherever they are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// All: every byte has a token of its own.
    All,
    /// Those with a token of their own, or with one for each of their bytes: ascending ranges.
    Some(Vec<RangeInclusive<char>>),
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.spelling.words.len();
        f.debug_struct("Vocabulary").field("size", &size).field("eos", &self.eos).finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// Builds the trie over the first `size` tokens of `spelling`; a text ends with one of `eos`.
    pub fn new(mut spelling: Spelling, size: usize, eos: &[u32]) -> Result<Self, UnusableVocabulary> {
        spelling.words.resize(size, Vec::new());
        let eos: Vec<u32> = eos.iter().copied().filter(|&id| (id as usize) < size).collect();
        for (id, word) in spelling.words.iter_mut().enumerate() {
            let ends = eos.contains(&(id as u32));
            if ends || word.len() > MAX_WORD || word.iter().any(|&byte| !in_utf_8(byte)) {
                word.clear();
            }
        }
        let alphabet = Alphabet::of(&spelling.words);
        let mut words = spelling.words.clone();
        // The space that the beginning of a text may lose, as a token that no model has.
        words.push(b" ".to_vec());
        let factory = factory(&words, &eos, &SlicedBiasComputer::json_slices())?;
        let mut single: Vec<Vec<u8>> =
            (0..=u8::MAX).map(|byte| if in_utf_8(byte) { vec![byte] } else { Vec::new() }).collect();
        single.push(b" ".to_vec());
        let bytes = factory_of_bytes(&single)?;
        Ok(Self { factory, bytes, spelling, eos, alphabet })
    }

    /// The stand-in for the space that the beginning of a text loses.
    pub fn lost_space(&self) -> u32 {
        self.spelling.words.len() as u32
    }

    pub fn factory(&self) -> &ParserFactory {
        &self.factory
    }

    pub fn byte_factory(&self) -> &ParserFactory {
        &self.bytes
    }
}

/// In the vocabulary of single bytes: the stand-in for the lost space.
pub(super) const LOST_SPACE_OF_BYTES: u32 = 256;

fn factory_of_bytes(single: &[Vec<u8>]) -> Result<ParserFactory, UnusableVocabulary> {
    factory(single, &[], &[])
}

fn factory(words: &[Vec<u8>], eos: &[u32], slices: &[String]) -> Result<ParserFactory, UnusableVocabulary> {
    let size = u32::try_from(words.len()).map_err(|_| UnusableVocabulary::TooLarge)?;
    let ends = eos.first().copied().unwrap_or(llguidance::toktrie::INVALID_TOKEN);
    let mut trie = TokTrie::from(&TokRxInfo::new(size, ends), words);
    if eos.len() > 1 {
        trie = trie.with_eos_tokens(eos);
    }
    let env: TokEnv = std::sync::Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), slices)
        .map_err(|error| UnusableVocabulary::Trie(error.to_string()))?;
    *factory.limits_mut() = LIMITS;
    factory.quiet();
    Ok(factory)
}

impl Alphabet {
    fn of(words: &[Vec<u8>]) -> Self {
        let mut bytes = [false; 256];
        let mut characters = BTreeSet::new();
        for word in words {
            if let &[byte] = word.as_slice() {
                bytes[usize::from(byte)] = true;
            }
            let mut text = std::str::from_utf8(word).unwrap_or_default().chars();
            if let (Some(character), None) = (text.next(), text.next()) {
                characters.insert(character);
            }
        }
        let all = (0..=u8::MAX).all(|byte| bytes[usize::from(byte)] || !in_utf_8(byte));
        if all {
            return Self::All;
        }
        let writable = |&c: &char| {
            characters.contains(&c) || c.encode_utf8(&mut [0; 4]).bytes().all(|byte| bytes[usize::from(byte)])
        };
        // A character beyond ASCII is put together from bytes only where there are first bytes of such.
        let composes = bytes[0xC2..=0xF4].contains(&true);
        let candidates: Vec<char> = if composes {
            ('\0'..=char::MAX).filter(writable).collect()
        } else {
            characters.into_iter().collect()
        };
        let mut ranges: Vec<RangeInclusive<char>> = Vec::new();
        for c in candidates {
            match ranges.last_mut() {
                Some(last) if (*last.end()..=c).nth(1) == Some(c) => *last = *last.start()..=c,
                _ => ranges.push(c..=c),
            }
        }
        Self::Some(ranges)
    }

    /// The characters of `text` that can't be written, each once.
    pub fn missing(&self, text: &str) -> BTreeSet<char> {
        match self {
            Self::All => BTreeSet::new(),
            Self::Some(known) => {
                let unknown = |c: &char| !known.iter().any(|range| range.contains(c));
                text.chars().filter(unknown).collect()
            }
        }
    }

    /// A regular expression for texts that can be written, where not all can.
    pub fn regex(&self) -> Option<String> {
        let Self::Some(known) = self else { return None };
        let code = |&c: &char| format!("\\x{{{:X}}}", u32::from(c));
        let class: String =
            known.iter().map(|range| code(range.start()) + "-" + &code(range.end())).collect();
        Some(if class.is_empty() { String::new() } else { format!("[{class}]*") })
    }
}

/// Whether the byte occurs in UTF-8 at all.
fn in_utf_8(byte: u8) -> bool {
    !matches!(byte, 0xC0 | 0xC1 | 0xF5..=0xFF)
}
