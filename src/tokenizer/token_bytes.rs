//! What one token stands for, in bytes: a token may be a part of a character.

use tokenizers::DecoderWrapper;

use super::Tokenizer;

/// How a vocabulary writes bytes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// A character for every byte (GPT-2).
    Bytes,
    /// `▁` for a space, and `<0x0A>` for a byte that no piece covers (SentencePiece).
    Marks,
    /// As it is.
    Plain,
}

impl Alphabet {
    /// The alphabet that `decoder` undoes.
    pub fn of(decoder: Option<&DecoderWrapper>) -> Self {
        let steps = decoder.and_then(|decoder| serde_json::to_string(decoder).ok()).unwrap_or_default();
        if steps.contains("\"ByteLevel\"") {
            Self::Bytes
        } else if steps.contains('\u{2581}') {
            Self::Marks
        } else {
            Self::Plain
        }
    }
}

impl Tokenizer {
    /// The bytes of a token; of a special token the vocabulary's entry (`</s>`), of an id outside the vocabulary none.
    /// Those of a text's tokens joined are the text, but for a space that some models put in front of it.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(piece) = self.piece(id) else { return Vec::new() };
        if self.inner.tokenizer.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id) {
            return piece.into_bytes();
        }
        match self.inner.alphabet {
            Alphabet::Bytes => piece.chars().flat_map(byte_level).collect(),
            Alphabet::Marks => single_byte(&piece)
                .map_or_else(|| piece.replace('\u{2581}', " ").into_bytes(), |byte| vec![byte]),
            Alphabet::Plain => piece.into_bytes(),
        }
    }
}

/// The byte of a piece `<0x0A>`.
fn single_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The byte that a character of GPT-2's alphabet writes down: printable bytes are themselves, the others follow from U+0100
/// on. What is no character of the alphabet stands for itself.
fn byte_level(character: char) -> Vec<u8> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(character);
    let byte = match u8::try_from(code) {
        Ok(byte) => Some(byte).filter(|&byte| is_printable(byte)),
        Err(_) => (0..=u8::MAX).filter(|&byte| !is_printable(byte)).nth(code as usize - 0x100),
    };
    byte.map_or_else(|| character.to_string().into_bytes(), |byte| vec![byte])
}
