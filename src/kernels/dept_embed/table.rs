#[cfg(feature = "cuda")]
use std::borrow::Cow;

use bytes::Bytes;

use super::row_blocks::{RowBlocks, RowFormat, SPAN};

/// Why numbers do not make an embedding table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an embedding table of {vocab} x {hidden} needs {vocab} x {hidden} values and {needed} scales: found {values} and {scales}"
)]
pub struct TableError {
    vocab: usize,
    hidden: usize,
    values: usize,
    scales: usize,
    /// Scales that the format asks for.
    needed: usize,
}

/// The frozen word embeddings E `(vocab, d)`, in the format that they are stored in.
#[derive(Debug, Clone)]
pub struct EmbeddingTable {
    vocab: usize,
    hidden: usize,
    storage: Storage,
}

#[derive(Debug, Clone)]
enum Storage {
    F32(Vec<f32>),
    /// Row `i` is `values[i] * scales[i]`.
    I8 {
        values: Vec<i8>,
        scales: Vec<f32>,
    },
    Blocks(RowBlocks),
}

/// The size of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableShape {
    pub vocab: usize,
    pub hidden: usize,
}

/// The numbers of a table, as they are copied to a device.
#[cfg(feature = "cuda")]
pub(super) enum TableParts<'a> {
    F32(Cow<'a, [f32]>),
    /// Values, and a scale a row.
    I8(&'a [i8], &'a [f32]),
}

impl EmbeddingTable {
    /// A table of `values` `(vocab, hidden)`.
    ///
    /// # Errors
    /// When the count is another one.
    pub fn f32(vocab: usize, hidden: usize, values: Vec<f32>) -> Result<Self, TableError> {
        let found = TableError { vocab, hidden, values: values.len(), scales: 0, needed: 0 };
        Self { vocab, hidden, storage: Storage::F32(values) }.checked(found)
    }

    /// A table of 8-bit `values` `(vocab, hidden)` with one scale a row.
    ///
    /// # Errors
    /// When a count is another one.
    pub fn i8(vocab: usize, hidden: usize, values: Vec<i8>, scales: Vec<f32>) -> Result<Self, TableError> {
        let found = TableError { vocab, hidden, values: values.len(), scales: scales.len(), needed: vocab };
        Self { vocab, hidden, storage: Storage::I8 { values, scales } }.checked(found)
    }

    /// A table `(vocab, hidden)` in blocks, whose `bytes` stay where they are.
    ///
    /// # Errors
    /// When they are not as many as the shape asks for, or a row isn't whole blocks.
    pub fn blocks(vocab: usize, hidden: usize, format: RowFormat, bytes: Bytes) -> Result<Self, TableError> {
        let blocks = bytes.len() / format.block_bytes();
        let (values, needed) = (blocks * SPAN, vocab.saturating_mul(hidden) / SPAN);
        let found = TableError { vocab, hidden, values, scales: blocks, needed };
        if !hidden.is_multiple_of(SPAN) || !bytes.len().is_multiple_of(format.block_bytes()) {
            return Err(found);
        }
        Self { vocab, hidden, storage: Storage::Blocks(RowBlocks { format, bytes, factor: 1.0 }) }
            .checked(found)
    }

    fn checked(self, found: TableError) -> Result<Self, TableError> {
        let filled = self.vocab.checked_mul(self.hidden) == Some(found.values);
        if filled && found.scales == found.needed && self.hidden > 0 { Ok(self) } else { Err(found) }
    }

    /// The same table with every row multiplied by `factor`.
    #[must_use]
    pub fn scaled(mut self, factor: f32) -> Self {
        match &mut self.storage {
            Storage::F32(values) => values.iter_mut().for_each(|value| *value *= factor),
            Storage::I8 { scales, .. } => scales.iter_mut().for_each(|scale| *scale *= factor),
            Storage::Blocks(blocks) => blocks.factor *= factor,
        }
        self
    }

    #[cfg(feature = "cuda")]
    pub(super) fn parts(&self) -> TableParts<'_> {
        match &self.storage {
            Storage::F32(values) => TableParts::F32(Cow::Borrowed(values)),
            Storage::I8 { values, scales } => TableParts::I8(values, scales),
            Storage::Blocks(blocks) => {
                let mut values = vec![0.0; self.vocab * self.hidden];
                let rows = values.chunks_exact_mut(self.hidden).enumerate();
                rows.for_each(|(token, row)| blocks.copy_row(token, row));
                TableParts::F32(Cow::Owned(values))
            }
        }
    }

    pub(super) fn shape(&self) -> TableShape {
        TableShape { vocab: self.vocab, hidden: self.hidden }
    }

    /// Rows of the table.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Width of a row, d.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Bytes that the table occupies.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(values) => values.len() * 4,
            Storage::I8 { values, scales } => values.len() + scales.len() * 4,
            Storage::Blocks(blocks) => blocks.bytes.len(),
        }
    }

    /// Writes row `token` to `out` `(d)`.
    pub fn copy_row(&self, token: usize, out: &mut [f32]) {
        let span = token * self.hidden..(token + 1) * self.hidden;
        match &self.storage {
            Storage::F32(values) => out.copy_from_slice(&values[span]),
            Storage::I8 { values, scales } => {
                let scale = scales[token];
                for (out, &value) in out.iter_mut().zip(&values[span]) {
                    *out = f32::from(value) * scale;
                }
            }
            Storage::Blocks(blocks) => blocks.copy_row(token, out),
        }
    }
}
