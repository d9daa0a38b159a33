//! Root-mean-square norm.
