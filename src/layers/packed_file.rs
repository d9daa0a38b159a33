//! Packed maps and tables in a file, so that the next start maps it and packs nothing.
//!
//! The bytes of each part, at multiples of 64; then an index in JSON; then eight bytes that say where the index
//! begins, and eight that say what the file is. Nothing is believed before the index is held against the file.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::packed_parts::{PackedPart, TableRows};
use crate::{
    backbones::weights::map_file,
    kernels::{
        dept_embed::RowFormat,
        linear::{LinearShape, PackedBytes, PackedFormat},
    },
};

/// The last bytes of a whole file.
const MAGIC: [u8; 8] = *b"deptpack";
/// Where the index begins, and the magic.
const FOOTER: usize = 16;
/// What is written at a time. A file's memory comes in pages as large as what was written at once, if that is aligned, and a
/// step of few rows reads all weights: through small pages it takes longer, see benches/README.md.
const LARGE_PAGE: usize = 2 << 20;
/// What every part begins at a multiple of: a cache line, as kernels want them.
const ALIGNMENT: usize = 64;

/// Why a file of packed parts is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PackedFileError {
    /// The system refuses it.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is cut short or broken.
    #[error("{path} is damaged: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// An open file of packed parts.
pub struct PackedFile {
    bytes: Bytes,
    parts: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Index {
    /// What the parts were packed from, and how.
    key: String,
    parts: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Map { format: PackedFormat, n: usize, k: usize, weights: Range<usize>, ends: Range<usize> },
    Table { format: RowFormat, vocab: usize, hidden: usize, rows: Range<usize> },
}

impl Entry {
    fn ranges(&self) -> [&Range<usize>; 2] {
        match self {
            Entry::Map { weights, ends, .. } => [weights, ends],
            Entry::Table { rows, .. } => [rows, rows],
        }
    }
}

impl PackedFile {
    /// Maps the file at `path`, which must have been written for `key`. No part is read.
    ///
    /// # Errors
    /// When it is not there, not a whole one, or of another key.
    pub fn open(path: &Path, key: &str) -> Result<Self, PackedFileError> {
        let bytes = map_file(path).map_err(|source| PackedFileError::Io { path: path.to_owned(), source })?;
        let parts = index(&bytes, key)
            .map_err(|reason| PackedFileError::Damaged { path: path.to_owned(), reason })?;
        Ok(Self { bytes, parts })
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The linear map of this name. Its bytes stay in the file.
    pub(super) fn map(&self, name: &str) -> Option<PackedBytes<Bytes>> {
        let Some(Entry::Map { format, n, k, weights, ends }) = self.parts.get(name) else { return None };
        let part = |range: &Range<usize>| self.bytes.slice(range.clone());
        let shape = LinearShape { n: *n, k: *k };
        Some(PackedBytes { format: *format, shape, weights: part(weights), ends: part(ends) })
    }

    /// The table of this name, likewise.
    pub(super) fn table(&self, name: &str) -> Option<(TableRows, Bytes)> {
        let &Entry::Table { format, vocab, hidden, ref rows } = self.parts.get(name)? else { return None };
        Some((TableRows { format, vocab, hidden }, self.bytes.slice(rows.clone())))
    }

    /// Writes `parts` for `key` to `path`: beside it first, renamed when all of it is on the disk, so that nobody ever sees a part.
    ///
    /// # Errors
    /// When the system refuses; then nothing is left.
    pub fn write(path: &Path, key: &str, parts: &[(String, PackedPart)]) -> Result<(), PackedFileError> {
        // In containers that share a folder every process may have the same number.
        let part = path.with_extension(format!("{}.part", Uuid::now_v7()));
        let written = write_all(&part, key, parts).and_then(|()| fs::rename(&part, path));
        written.map_err(|source| {
            // The first failure is what is told.
            let _ = fs::remove_file(&part);
            PackedFileError::Io { path: path.to_owned(), source }
        })
    }
}

impl fmt::Debug for PackedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedFile({} parts, {} bytes)", self.parts.len(), self.bytes.len())
    }
}

/// The index, with every range inside the file.
fn index(bytes: &[u8], key: &str) -> Result<BTreeMap<String, Entry>, String> {
    let (rest, footer) = bytes.split_last_chunk::<FOOTER>().ok_or("it is shorter than its last bytes")?;
    let (start, magic) = footer.split_first_chunk::<8>().ok_or("it has no footer")?;
    if magic != MAGIC {
        return Err("its last bytes aren't those of such a file".into());
    }
    let start = usize::try_from(u64::from_le_bytes(*start)).ok();
    let json = start.and_then(|start| rest.get(start..)).ok_or("its index begins behind its end")?;
    let data = rest.len() - json.len();
    let index: Index = serde_json::from_slice(json).map_err(|error| format!("its index: {error}"))?;
    if index.key != key {
        return Err("it was packed from another file or in another way".into());
    }
    for (name, entry) in &index.parts {
        for Range { start, end } in entry.ranges() {
            if start > end || *end > data {
                return Err(format!("'{name}' lies at {start}..{end}, and there are {data} bytes"));
            }
        }
    }
    Ok(index.parts)
}

fn write_all(path: &Path, key: &str, parts: &[(String, PackedPart)]) -> io::Result<()> {
    let mut out = Parts { file: LargePages::new(create(path)?), at: 0 };
    let mut index = Index { key: key.to_owned(), parts: BTreeMap::new() };
    for (name, part) in parts {
        let entry = match part {
            PackedPart::Map(linear) => {
                let PackedBytes { format, shape: LinearShape { n, k }, weights, ends } = linear.bytes();
                Entry::Map { format, n, k, weights: out.part(weights)?, ends: out.part(ends)? }
            }
            PackedPart::Table(TableRows { format, vocab, hidden }, rows) => {
                Entry::Table { format: *format, vocab: *vocab, hidden: *hidden, rows: out.part(rows)? }
            }
        };
        index.parts.insert(name.clone(), entry);
    }
    let start = out.at as u64;
    let mut file = out.file;
    file.write(&serde_json::to_vec(&index)?)?;
    file.write(&start.to_le_bytes())?;
    file.write(&MAGIC)?;
    file.finish()?.sync_all()
}

/// A new file that only its owner may read.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A file that is written in large pages.
struct LargePages {
    file: File,
    page: Vec<u8>,
}

impl LargePages {
    fn new(file: File) -> Self {
        Self { file, page: Vec::with_capacity(LARGE_PAGE) }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(LARGE_PAGE - self.page.len()));
            self.page.extend_from_slice(now);
            if self.page.len() == LARGE_PAGE {
                self.file.write_all(&self.page)?;
                self.page.clear();
            }
            bytes = later;
        }
        Ok(())
    }

    /// Writes what is left.
    fn finish(mut self) -> io::Result<File> {
        self.file.write_all(&self.page)?;
        Ok(self.file)
    }
}

/// A file that grows by aligned parts.
struct Parts {
    file: LargePages,
    at: usize,
}

impl Parts {
    fn part(&mut self, bytes: &[u8]) -> io::Result<Range<usize>> {
        let start = self.at;
        self.file.write(bytes)?;
        let end = start + bytes.len();
        self.at = end.next_multiple_of(ALIGNMENT);
        self.file.write(&[0; ALIGNMENT][..self.at - end])?;
        Ok(start..end)
    }
}

#[cfg(test)]
mod tests;
