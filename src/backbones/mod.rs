//! Frozen language models over ragged batches.

pub mod decoder;
pub mod hub;
mod source;
pub mod t5;
pub mod weights;

pub use source::{ModelSource, SourceError};
