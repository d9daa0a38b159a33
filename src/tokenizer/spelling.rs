//! What each token of a vocabulary writes, as bytes, for a token may be a part of a character: what grammars are followed by, and
//! what clients are told of single tokens.

use serde::Deserialize;
use tokenizers::DecoderWrapper;

use super::Tokenizer;

/// The bytes that tokens write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spelling {
    /// By id: what the token writes behind others; nothing for special tokens and ids without a token.
    pub words: Vec<Vec<u8>>,
    /// What becomes of spaces at the beginning of a text.
    pub beginning: Beginning,
}

/// What decoding does to spaces at the beginning of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing.
    AsIs,
    /// The first one is left out (the first Llamas).
    LosesOne,
    /// All that the first token has are left out (T5).
    LosesAllOfFirst,
}

/// How the library turns pieces into text, in the form of its `tokenizer.json`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
enum Decoder {
    ByteLevel {},
    Metaspace {
        replacement: char,
        prepend_scheme: Option<String>,
    },
    Sequence {
        decoders: Vec<Decoder>,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    ByteFallback {},
    Fuse {},
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
enum Pattern {
    String(String),
    Regex(#[expect(dead_code, reason = "what is in it decides nothing")] String),
}

/// A decoder that takes pieces one by one: a token writes the same bytes wherever it stands, but at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spells {
    /// A letter stands for a byte.
    ByteLevel,
    /// A mark stands for a space, and `<0x0A>` for a byte where there is byte fallback.
    Marked { mark: char, byte_fallback: bool, beginning: Beginning },
}

impl Tokenizer {
    /// What each token writes; `None` where the text of a piece depends on its neighbours, or is not known to be so.
    pub fn spelling(&self) -> Option<Spelling> {
        let spells = self.inner.spells?;
        let word = |id| if self.is_text(id) { self.piece(id) } else { None };
        let words = (0..self.id_bound() as u32)
            .map(|id| word(id).map(|piece| spells.bytes(&piece)).unwrap_or_default());
        Some(Spelling { words: words.collect(), beginning: spells.beginning() })
    }

    /// The bytes of a token; of a special token the vocabulary's entry (`</s>`), of an id outside the vocabulary none.
    /// Those of a text's tokens joined are the text, but for a space that some models put in front of it.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(piece) = self.piece(id) else { return Vec::new() };
        let added = self.inner.tokenizer.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id);
        match self.inner.spells.filter(|_| !added) {
            Some(spells) => spells.bytes(&piece),
            None => piece.into_bytes(),
        }
    }
}

impl Spelling {
    /// Whether a text may begin with this token and then go on as if the token's first space had been left out.
    pub fn loses_one_space(&self, id: u32) -> bool {
        let word = self.words.get(id as usize).map_or(&[][..], Vec::as_slice);
        match self.beginning {
            Beginning::AsIs => false,
            Beginning::LosesOne => word.starts_with(b" "),
            Beginning::LosesAllOfFirst => word.starts_with(b" ") && !word[1..].contains(&b' '),
        }
    }

    /// Whether a text may begin with this token as it is.
    pub fn loses_none(&self, id: u32) -> bool {
        let word = self.words.get(id as usize).map_or(&[][..], Vec::as_slice);
        match self.beginning {
            Beginning::AsIs => true,
            Beginning::LosesOne => !word.starts_with(b" "),
            Beginning::LosesAllOfFirst => !word.contains(&b' '),
        }
    }
}

impl Spells {
    /// What `decoder` does, where it takes pieces one by one.
    pub(super) fn of(decoder: &DecoderWrapper) -> Option<Self> {
        let described = serde_json::to_value(decoder).ok()?;
        match serde_json::from_value(described).ok()? {
            Decoder::ByteLevel {} => Some(Self::ByteLevel),
            Decoder::Metaspace { replacement, prepend_scheme } => {
                let keeps = prepend_scheme.as_deref() == Some("never");
                let beginning = if keeps { Beginning::AsIs } else { Beginning::LosesAllOfFirst };
                Some(Self::Marked { mark: replacement, byte_fallback: false, beginning })
            }
            Decoder::Sequence { decoders } => Self::of_sequence(&decoders),
            _ => None,
        }
    }

    /// The sequence that sentencepiece's pairs are decoded by.
    fn of_sequence(decoders: &[Decoder]) -> Option<Self> {
        let (mut mark, mut bytes, mut beginning) = (None, false, Beginning::AsIs);
        for decoder in decoders {
            match decoder {
                Decoder::Replace { pattern: Pattern::String(from), content } if content == " " => {
                    let mut letters = from.chars();
                    mark = Some(letters.next().filter(|_| mark.is_none() && letters.next().is_none())?);
                }
                Decoder::ByteFallback {} => bytes = true,
                Decoder::Fuse {} => {}
                Decoder::Strip { content: ' ', start: 1, stop: 0 } => beginning = Beginning::LosesOne,
                _ => return None,
            }
        }
        Some(Self::Marked { mark: mark?, byte_fallback: bytes, beginning })
    }

    fn beginning(self) -> Beginning {
        match self {
            Self::ByteLevel => Beginning::AsIs,
            Self::Marked { beginning, .. } => beginning,
        }
    }

    fn bytes(self, piece: &str) -> Vec<u8> {
        match self {
            // What is not spelt in letters, such as an added token, stands for itself.
            Self::ByteLevel => piece
                .chars()
                .map(|letter| BYTE_LETTERS.get(letter as usize).copied().flatten())
                .collect::<Option<Vec<u8>>>()
                .unwrap_or_else(|| piece.as_bytes().to_vec()),
            Self::Marked { mark, byte_fallback, .. } => match fallback(piece).filter(|_| byte_fallback) {
                Some(byte) => vec![byte],
                None => piece.replace(mark, " ").into_bytes(),
            },
        }
    }
}

/// The byte that `<0x0A>` stands for.
fn fallback(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

/// GPT-2's alphabet, by code point: bytes that can be printed are themselves, the others are the letters from U+0100 on.
static BYTE_LETTERS: [Option<u8>; 0x144] = byte_letters();

const fn byte_letters() -> [Option<u8>; 0x144] {
    let mut letters = [None; 0x144];
    let (mut byte, mut moved) = (0u8, 0x100);
    loop {
        if matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
            letters[byte as usize] = Some(byte);
        } else {
            letters[moved] = Some(byte);
            moved += 1;
        }
        if byte == u8::MAX {
            return letters;
        }
        byte += 1;
    }
}
