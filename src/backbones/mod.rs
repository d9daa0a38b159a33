//! Frozen language models over ragged batches.

pub mod decoder;
pub(crate) mod digest;
pub mod hub;
pub mod t5;
pub mod weights;
