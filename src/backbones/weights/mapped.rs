#![expect(unsafe_code, reason = "the memory map")]

use std::{
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use sha2::{Digest, Sha256};

use super::WeightsError;

/// Bytes of a file that are in memory at once while it is digested.
const DIGESTED: usize = 4 << 20;

/// A SHA-256.
pub(super) type Digested = sha2::digest::Output<Sha256>;

/// A file in memory by the system's grace: pages come when touched.
#[derive(Debug)]
pub(super) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(WeightsError::NoWeights(path.to_owned()));
        }
        Ok(Self { path: path.to_owned(), map: map(&file).map_err(io)? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// SHA-256 of the content. Takes no memory for it.
    pub(super) fn digest(&self) -> Digested {
        let mut hash = Sha256::new();
        for (at, part) in self.map.chunks(DIGESTED).enumerate() {
            hash.update(part);
            self.release(at * DIGESTED..at * DIGESTED + part.len());
        }
        hash.finalize()
    }

    /// Lets go of the pages that were touched: they come again when they are.
    pub(super) fn release_all(&self) {
        self.release(0..self.map.len());
    }

    fn release(&self, range: Range<usize>) {
        // SAFETY: pages of a read-only map of a file that nobody edits come back as they were, so no reference into the map
        // sees another byte.
        #[cfg(unix)]
        let advised =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        #[cfg(unix)]
        if let Err(error) = advised {
            tracing::debug!(path = %self.path.display(), %error, "the system keeps the pages of a file");
        }
    }
}

/// A file's bytes by the system's grace, for as long as somebody holds a part of them.
///
/// # Errors
/// What the system says.
pub(crate) fn map_file(path: &Path) -> io::Result<Bytes> {
    let map = map(&File::open(path)?)?;
    // Packed weights: all of them are read at every step, and small pages make that slower. A system that has no large ones says
    // so, and nothing is lost.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(Bytes::from_owner(map))
}

fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is read-only, and every byte pattern is a valid u8. Another process that edits the file or cuts it
    // short while we hold it would change bytes under us or fault us: such files are
    // replaced by renaming, never edited in place.
    unsafe { Mmap::map(file) }
}
