//! Frozen language models over ragged batches.

pub(crate) mod digest;
pub mod hub;
mod source;
pub mod weights;

pub use source::{ModelSource, SourceError};
