//! Adapters named by a path on the server, as controllers of other servers do: never from outside of one folder.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use super::folder::{self, AdapterBytes, FolderError};

/// Longest path in bytes.
const MAX_PATH: usize = 4096;

/// Why nothing is read from a path.
#[derive(Debug, thiserror::Error)]
pub enum LoadPathError {
    /// Not a path that could lead to an adapter below the folder, whatever is there. What a link hides is no more said
    /// than what lies elsewhere.
    #[error(
        "lora_path '{0}' leads to no folder below the server's --adapter-load-root: write it from there, without '..', \
         without names that begin with a dot, and without links that lead out"
    )]
    Outside(String),
    /// There is no such folder.
    #[error("there is no folder '{0}' below the server's --adapter-load-root")]
    Missing(String),
    /// The weights are larger than an upload may be.
    #[error("{0}")]
    TooLarge(String),
    /// The folder is below the root and holds no sound adapter.
    #[error("{0}")]
    Unsound(String),
    /// The system refuses to say.
    #[error("lora_path '{path}' can't be read: {source}")]
    Io {
        /// The path as it was given.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

/// The folder below which paths lead.
#[derive(Debug, Clone)]
pub struct LoadRoot {
    /// As the operator wrote it: absolute paths may begin so.
    named: PathBuf,
    /// Without links.
    real: PathBuf,
}

impl LoadRoot {
    /// # Errors
    /// When there is no such folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let real = std::fs::canonicalize(folder)?;
        if !real.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { named: folder.to_owned(), real })
    }

    /// The files of the adapter's folder at `path`: from the root, or absolute and below it. Blocks.
    ///
    /// # Errors
    /// When it leads elsewhere, there is no such folder, or its files are missing or larger than they may be; of the weights
    /// that is `limit`.
    pub fn read(&self, path: &str, limit: usize) -> Result<AdapterBytes, LoadPathError> {
        let outside = || LoadPathError::Outside(path.to_owned());
        let below = self.below(path).ok_or_else(outside)?;
        let folder = match std::fs::canonicalize(self.real.join(below)) {
            Ok(folder) => folder,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(LoadPathError::Missing(path.to_owned()));
            }
            Err(source) => return Err(LoadPathError::Io { path: path.to_owned(), source }),
        };
        if folder == self.real || !folder.starts_with(&self.real) {
            return Err(outside());
        }
        if !folder.is_dir() {
            return Err(LoadPathError::Missing(path.to_owned()));
        }
        Ok(folder::read_files_within(&folder, limit as u64).map_err(|error| self.unsound(&error))?.0)
    }

    /// What stands behind the root in `path`, by its letters alone: nothing is looked up for a path that leads elsewhere.
    fn below(&self, path: &str) -> Option<PathBuf> {
        if path.is_empty() || path.len() > MAX_PATH || path.contains('\0') {
            return None;
        }
        let path = Path::new(path);
        let path = if path.is_absolute() {
            path.strip_prefix(&self.named).or_else(|_| path.strip_prefix(&self.real)).ok()?
        } else {
            path
        };
        let mut below = PathBuf::new();
        for part in path.components() {
            match part {
                // `.store` of an adapters' folder is not a place to load from.
                Component::Normal(name) if !name.as_encoded_bytes().starts_with(b".") => below.push(name),
                Component::CurDir => {}
                _ => return None,
            }
        }
        (below.components().next().is_some()).then_some(below)
    }

    /// What is wrong with the folder's files, without saying where the root is.
    fn unsound(&self, error: &FolderError) -> LoadPathError {
        let root = format!("{}/", self.real.display());
        let said = error.to_string().replace(&root, "");
        match error {
            FolderError::TooLarge { .. } => LoadPathError::TooLarge(said),
            _ => LoadPathError::Unsound(said),
        }
    }
}
