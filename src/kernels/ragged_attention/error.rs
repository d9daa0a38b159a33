//! Why a batch can't be attended.

use std::ops::Range;

/// Why a batch can't be attended. Checked before any row is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttentionError {
    /// The spans do not cover the rows one behind the other.
    #[error("span {span} covers query rows {found:?}: expected it to start at row {expected} of {rows}")]
    Rows {
        /// Which span.
        span: usize,
        /// Its rows.
        found: Range<usize>,
        /// Where it has to start (or, after the last span, how far they have to reach).
        expected: usize,
        /// Query rows in all.
        rows: usize,
    },
    /// Query heads that can't be shared out among the heads of keys and values.
    #[error("{heads} query heads over {kv_heads} heads of keys: the first must be a multiple of the second")]
    Groups {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
    },
    /// A span's keys reach beyond the tensor or its block table.
    #[error("span {span} wants {context} keys, which lie outside of the {available} rows at hand")]
    Keys {
        /// Which span.
        span: usize,
        /// Keys wanted.
        context: usize,
        /// Rows at hand.
        available: usize,
    },
    /// A span's positions reach beyond the bias table.
    #[error("span {span} reaches position {position}: the relative bias is laid out up to {reach}")]
    Bias {
        /// Which span.
        span: usize,
        /// The position.
        position: usize,
        /// Largest distance in the table.
        reach: usize,
    },
    /// Heads that the device's kernels do not take.
    #[error(
        "heads of {dim} numbers: a CUDA device takes multiples of 4 up to 256; serve this model with --device cpu"
    )]
    Head {
        /// Numbers a head.
        dim: usize,
    },
    /// A tensor does not have the columns that the heads need.
    #[error("a row has {found} columns: the heads need {expected}")]
    Columns {
        /// Columns needed.
        expected: usize,
        /// Columns found.
        found: usize,
    },
}
