//! Frozen language models over ragged batches.

pub mod decoder;
pub(crate) mod digest;
pub mod hub;
pub mod t5;
pub mod weights;

/// A text and the answer that the model should give to it, as token ids: a training example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextPair<'a> {
    /// What the model reads, the tokenizer's own tokens included.
    pub source: &'a [u32],
    /// What it should answer, the end token included. Not empty.
    pub target: &'a [u32],
}
