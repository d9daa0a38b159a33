//! Frozen language models over ragged batches.
