use std::{
    fs::File,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use super::WeightsError;

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
        // SAFETY: the map is read-only and private to this process, and every byte pattern is a valid u8.
        // Another process that cuts the file short while we hold it would fault us: model files are
        // replaced by renaming, never edited in place.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self { path: path.to_owned(), map })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }
}
