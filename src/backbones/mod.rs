//! Frozen language models over ragged batches.

pub mod t5;
pub mod weights;
