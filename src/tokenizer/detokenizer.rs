use super::Tokenizer;

/// Tokens that may wait for the rest of a character before they are given out as they stand. A character is
/// four bytes at most, so more can only be a run of bytes that never was UTF-8.
const MOST_PENDING: usize = 16;

/// The replacement character: a byte sequence that isn't UTF-8, or isn't yet.
const BROKEN: char = '\u{fffd}';

/// Ids to text, one at a time. The pieces joined are the text of all ids; a character that is spread over
/// several tokens comes whole. Work per token is bounded: a window of the last tokens is decoded, never the
/// sequence.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    /// Tokens given out already (context for spacing), then tokens that wait.
    pub(super) window: Vec<u32>,
    /// Length of the first part.
    given: usize,
    /// The text of the first part.
    given_text: String,
}

impl Detokenizer {
    /// For a new sequence.
    pub fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, window: Vec::new(), given: 0, given_text: String::new() }
    }

    /// Takes the next id; returns the text that is now certain, if any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        if !self.tokenizer.is_text(id) {
            return None;
        }
        self.window.push(id);
        let text = self.tokenizer.decode_window(&self.window);
        let certain = !text.ends_with(BROKEN) && text.len() > self.given_text.len();
        if certain || self.window.len() - self.given >= MOST_PENDING { self.release(&text) } else { None }
    }

    /// Ends the sequence; returns what was still held back, broken characters marked by U+FFFD.
    pub fn flush(&mut self) -> Option<String> {
        if self.window.len() == self.given {
            return None;
        }
        let text = self.tokenizer.decode_window(&self.window);
        self.release(&text)
    }

    /// Gives out the waiting tokens as they stand.
    fn release(&mut self, text: &str) -> Option<String> {
        let piece = match text.strip_prefix(&self.given_text) {
            Some(piece) => piece.to_owned(),
            // Waiting bytes changed the context's own text, which is given out already: let them stand alone.
            None => self.tokenizer.decode_window(&self.window[self.given..]),
        };
        self.advance();
        (!piece.is_empty()).then_some(piece)
    }

    /// What waited becomes the context of what comes.
    fn advance(&mut self) {
        self.window.drain(..self.given);
        self.given = self.window.len();
        self.given_text = self.tokenizer.decode_window(&self.window);
    }
}
