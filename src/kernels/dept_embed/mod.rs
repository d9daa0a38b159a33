//! The input embeddings of a ragged batch with every sequence's adapter applied.
