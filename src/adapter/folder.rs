//! An adapter's folder, read and checked as a whole.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    assemble::{AssembleError, assemble},
    card::{Card, CardError, MAX_CARD_BYTES},
    generation::Generation,
    manifest::{Manifest, ManifestError},
    tensor_file::{MAX_FILE_BYTES, TensorFile, TensorFileError, TensorInfo, WeightsFormat},
    weights::{AdapterWeights, Update},
};
use crate::domain::AdapterName;

/// The config's file name.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The card's file name.
pub const CARD_FILE: &str = "card.toml";
/// Longest config in bytes.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Why a folder is refused.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is no such folder.
    #[error("'{path}' is not a folder that can be read: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A needed file is not there.
    #[error(
        "'{0}' is missing: an adapter's folder holds adapter_config.json and adapter_model.safetensors or adapter_model.bin"
    )]
    Missing(PathBuf),
    /// A file can't be read.
    #[error("'{path}' can't be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A directory, device or pipe in place of a file.
    #[error("'{0}' is not a regular file")]
    NotFile(PathBuf),
    /// A link that leads out of the folder.
    #[error("'{0}' is a link out of the adapter's folder, which is not followed: put the file itself there")]
    Outside(PathBuf),
    /// Larger than anything that belongs there.
    #[error("'{path}' has {found} bytes, at most {limit} are read")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The config is refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The weights file is damaged or of another format.
    #[error("{file}: {source}")]
    Weights {
        /// The file's name.
        file: &'static str,
        /// What is wrong.
        source: TensorFileError,
    },
    /// Config and weights do not agree.
    #[error("{file}: {source}")]
    Assemble {
        /// The weights file's name.
        file: &'static str,
        /// What is wrong.
        source: Box<AssembleError>,
    },
    /// The card is refused.
    #[error(transparent)]
    Card(#[from] CardError),
}

/// The bytes of an adapter, from a folder or an upload.
#[derive(Debug, Clone)]
pub struct AdapterBytes {
    /// `adapter_config.json`
    pub config: Vec<u8>,
    /// The format of the weights.
    pub format: WeightsFormat,
    /// The weights file.
    pub weights: Vec<u8>,
    /// `card.toml`
    pub card: Option<Vec<u8>>,
}

/// An adapter that passed every check, not yet named.
#[derive(Debug, Clone)]
pub struct LoadedAdapter {
    /// What its config declares.
    pub manifest: Manifest,
    /// Its tensors.
    pub weights: AdapterWeights,
    /// Its card; empty where there is none.
    pub card: Card,
    /// The format it was stored in.
    pub format: WeightsFormat,
    /// What the weights file held, by name.
    pub tensors: Vec<(String, TensorInfo)>,
    /// When the weights file was written.
    pub written_at: SystemTime,
}

impl LoadedAdapter {
    /// Checks an adapter's bytes. `task_id` picks a task of a multitask prompt over the config's own choice.
    ///
    /// # Errors
    /// Names the file, the field or tensor, what was expected and what was found.
    pub fn from_bytes(bytes: AdapterBytes, task_id: Option<usize>) -> Result<Self, FolderError> {
        let mut manifest = Manifest::parse(&bytes.config)?;
        if let Some(task_id) = task_id {
            manifest = manifest.with_task(task_id)?;
        }
        let card = bytes.card.as_deref().map(Card::parse).transpose()?.unwrap_or_default();
        let file = bytes.format.file_name();
        let mut tensors = TensorFile::open(bytes.format, bytes.weights)
            .map_err(|source| FolderError::Weights { file, source })?;
        let weights = assemble(&manifest, &mut tensors)
            .map_err(|source| FolderError::Assemble { file, source: source.into() })?;
        let manifest = manifest.decided(matches!(weights.update(), Update::Adept(_)));
        let tensors = tensors.infos().iter().map(|(name, info)| (name.clone(), info.clone())).collect();
        let format = bytes.format;
        Ok(Self { manifest, weights, card, format, tensors, written_at: SystemTime::now() })
    }

    /// Names it; its version comes from its content.
    pub fn into_generation(self, name: AdapterName) -> Generation {
        Generation::new(name, self.manifest, self.weights, self.card, self.written_at)
    }
}

/// Loads an adapter's folder.
///
/// # Errors
/// As [`LoadedAdapter::from_bytes`], and when files are missing, too large or links out of the folder.
pub fn load(folder: &Path) -> Result<LoadedAdapter, FolderError> {
    load_task(folder, None)
}

/// Loads an adapter's folder for one task of its multitask prompt.
///
/// # Errors
/// As [`load`], and when it has no such task.
pub fn load_task(folder: &Path, task_id: Option<usize>) -> Result<LoadedAdapter, FolderError> {
    let (bytes, written_at) = read_files(folder)?;
    Ok(LoadedAdapter { written_at, ..LoadedAdapter::from_bytes(bytes, task_id)? })
}

/// Reads an adapter's folder and checks none of its contents. Also when its weights were written.
///
/// # Errors
/// When files are missing, too large or links out of the folder.
pub fn read_files(folder: &Path) -> Result<(AdapterBytes, SystemTime), FolderError> {
    read_files_within(folder, MAX_FILE_BYTES)
}

/// As [`read_files`], with weights of at most `limit` bytes.
///
/// # Errors
/// As [`read_files`].
pub fn read_files_within(folder: &Path, limit: u64) -> Result<(AdapterBytes, SystemTime), FolderError> {
    let root = fs::canonicalize(folder)
        .and_then(|root| fs::read_dir(&root).map(|_| root))
        .map_err(|source| FolderError::Folder { path: folder.to_owned(), source })?;
    let config_path = folder.join(CONFIG_FILE);
    let config = read(&root, CONFIG_FILE, MAX_CONFIG_BYTES)?.ok_or(FolderError::Missing(config_path))?.bytes;
    let card = read(&root, CARD_FILE, MAX_CARD_BYTES as u64)?.map(|file| file.bytes);
    let (format, weights) = read_weights(&root, limit)?
        .ok_or_else(|| FolderError::Missing(folder.join(WeightsFormat::Safetensors.file_name())))?;
    Ok((AdapterBytes { config, format, weights: weights.bytes, card }, weights.written_at))
}

/// The weights in the preferred format of those there.
fn read_weights(root: &Path, limit: u64) -> Result<Option<(WeightsFormat, ReadFile)>, FolderError> {
    for format in [WeightsFormat::Safetensors, WeightsFormat::TorchBin] {
        if let Some(file) = read(root, format.file_name(), limit.min(MAX_FILE_BYTES))? {
            return Ok(Some((format, file)));
        }
    }
    Ok(None)
}

struct ReadFile {
    bytes: Vec<u8>,
    written_at: SystemTime,
}

/// A file's bytes, or nothing where there is none. Links are followed only within `root`, a real path.
fn read(root: &Path, name: &str, limit: u64) -> Result<Option<ReadFile>, FolderError> {
    let path = root.join(name);
    let failed = |source| FolderError::Read { path: path.clone(), source };
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let real = fs::canonicalize(&path).map_err(failed)?;
    if !real.starts_with(root) {
        return Err(FolderError::Outside(path));
    }
    // Before opening: opening a pipe would wait for its writer.
    if !fs::metadata(&real).map_err(failed)?.is_file() {
        return Err(FolderError::NotFile(path));
    }
    let file = File::open(&real).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let too_large = |found| FolderError::TooLarge { path: path.clone(), found, limit };
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    let written_at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Some(ReadFile { bytes, written_at }))
}
