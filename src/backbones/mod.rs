//! Frozen language models over ragged batches.

pub mod weights;
