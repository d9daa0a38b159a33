//! Where a loader's packed maps and tables come from.

use std::cell::RefCell;

use bytes::Bytes;

use super::PackedFile;
use crate::kernels::{
    dept_embed::{EmbeddingTable, RowFormat, TableError},
    linear::{Epilogue, Linear, LinearShape},
    pool::ComputePool,
};

/// Where packed parts of a model come from, and whether they are remembered.
#[derive(Debug, Default)]
pub enum PackedParts {
    /// Each is made from the checkpoint.
    #[default]
    Fresh,
    /// They were made by an earlier start, and lie in a file.
    Kept(PackedFile),
    /// Each is made, and remembered by its name for a file.
    Remembered(RefCell<Vec<(String, PackedPart)>>),
}

/// A part of a model that a file can keep. A clone shares the memory.
#[derive(Debug, Clone)]
pub enum PackedPart {
    /// A linear map.
    Map(Linear),
    /// A table whose rows are read as the file has them, and their bytes.
    Table(TableRows, Bytes),
}

/// What the bytes of a table's rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRows {
    /// How a row is read.
    pub format: RowFormat,
    /// Rows.
    pub vocab: usize,
    /// Elements of a row.
    pub hidden: usize,
}

/// Which map is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Unique within a model, and another one with another epilogue.
    pub name: String,
    /// Outputs of all its parts, and inputs.
    pub shape: LinearShape,
    /// What its outputs go through.
    pub epilogue: Epilogue,
    /// Outputs that can be read at a time.
    pub strip: usize,
}

impl PackedParts {
    /// The map as it is kept; where it is not, as `pack` makes it.
    pub(super) fn map<E>(
        &self,
        wanted: Wanted,
        pool: &ComputePool,
        pack: impl FnOnce() -> Result<Linear, E>,
    ) -> Result<Linear, E> {
        if let PackedParts::Kept(file) = self {
            let bytes = file.map(&wanted.name).filter(|bytes| bytes.shape == wanted.shape);
            let kept = bytes.and_then(|bytes| Linear::from_bytes(bytes, wanted.epilogue, pool.clone()));
            if let Some(linear) = kept {
                return Ok(linear);
            }
            missing(&wanted.name);
        }
        let linear = pack()?;
        self.remember(wanted.name, || PackedPart::Map(linear.clone()));
        Ok(linear)
    }

    /// The table `module` as it is kept; where it is not, of the bytes that `read` gives.
    pub(super) fn table(
        &self,
        module: &str,
        shape: TableRows,
        read: impl FnOnce() -> Bytes,
    ) -> Result<EmbeddingTable, TableError> {
        let name = format!("{module} as a table");
        let table = |bytes| EmbeddingTable::blocks(shape.vocab, shape.hidden, shape.format, bytes);
        if let PackedParts::Kept(file) = self {
            let kept = file.table(&name).filter(|(found, _)| *found == shape);
            if let Some(table) = kept.and_then(|(_, bytes)| table(bytes).ok()) {
                return Ok(table);
            }
            missing(&name);
        }
        let bytes = read();
        let table = table(bytes.clone())?;
        self.remember(name, || PackedPart::Table(shape, bytes));
        Ok(table)
    }

    fn remember(&self, name: String, part: impl FnOnce() -> PackedPart) {
        if let PackedParts::Remembered(parts) = self {
            parts.borrow_mut().push((name, part()));
        }
    }
}

/// A file whose key is right has all parts, unless it is damaged.
fn missing(name: &str) {
    tracing::warn!(
        name,
        "a part of the packed weights is not there or damaged: remove the file and start again, or it is made anew each time"
    );
}
