//! Packed weights on the disk from one start to the next.
//!
//! A file is named by the digest of all that its content depends on, so it is right or not there. Whatever the disk refuses costs
//! time and no start.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use crate::{
    backbones::{digest::hex, weights::Weights},
    kernels::linear::LAYOUT,
    layers::{PackedFile, PackedFileError, PackedPart, PackedParts, Recipe},
};

const HOUR: Duration = Duration::from_secs(60 * 60);
/// How long a file that nobody uses is kept, by its suffix: packed weights, and a part that a killed start has left.
const KEPT: [(&str, Duration); 2] = [("packed", HOUR.saturating_mul(30 * 24)), ("part", HOUR)];
/// Digits of the digest in a file's name.
const DIGITS: usize = 16;
/// Characters of a model's name in a file's name, which systems bound at 255 bytes.
const NAME: usize = 40;

/// Where the packed weights of one model lie, in one recipe.
#[derive(Debug)]
pub(super) struct WeightsCache<'a> {
    pub folder: &'a Path,
    pub weights: &'a Weights,
    pub recipe: Recipe,
}

/// Packed weights that are to be kept.
#[derive(Debug)]
pub struct Unkept {
    path: PathBuf,
    key: String,
    parts: Vec<(String, PackedPart)>,
}

/// The thread that keeps packed weights; it is waited for when this is dropped, since a part of a file would be left otherwise.
#[derive(Debug)]
pub struct Keeping(Option<JoinHandle<()>>);

impl WeightsCache<'_> {
    /// What is kept there, or parts that are remembered because nothing is. Reads all of the weights once, for their digest,
    /// where there is a file that may be the right one.
    pub fn open(&self) -> PackedParts {
        prune(self.folder, SystemTime::now());
        let stem = format!("{}-", self.name());
        let names = fs::read_dir(self.folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        if !names.into_iter().any(|name| name.to_str().is_some_and(|name| name.starts_with(&stem))) {
            return PackedParts::Remembered(Vec::new().into());
        }
        let (path, key) = (self.path(), self.key());
        match PackedFile::open(&path, &key) {
            Ok(file) => {
                tracing::info!(path = %path.display(), parts = file.parts(), "the weights were packed by an earlier start");
                touch(&path);
                return PackedParts::Kept(file);
            }
            Err(PackedFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "packed weights are made anew"),
        }
        PackedParts::Remembered(Vec::new().into())
    }

    /// `parts` as they are to be kept.
    pub fn unkept(&self, parts: Vec<(String, PackedPart)>) -> Unkept {
        Unkept { path: self.path(), key: self.key(), parts }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}-{}.packed", self.name(), &self.key()[..DIGITS]))
    }

    /// The model's name, or so much of it as a file's name can have.
    fn name(&self) -> String {
        let name = self.weights.path().file_name().and_then(OsStr::to_str).unwrap_or("model");
        name.chars().take(NAME).collect()
    }

    /// The digest of what packed weights depend on: the tensors, what is said of them, who packs them and how, and the order of
    /// bytes.
    fn key(&self) -> String {
        let mut hash = Sha256::new();
        let config = self.weights.config().map(serde_json::Value::to_string).unwrap_or_default();
        let how = format!("dept {} layout {LAYOUT} {:?}", env!("CARGO_PKG_VERSION"), self.recipe);
        for part in [self.weights.fingerprint(), &config, &how] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.update(1u32.to_ne_bytes());
        hex(&hash.finalize())
    }
}

impl Unkept {
    /// Keeps them, on a thread of its own: nobody waits for the disk but who ends before.
    pub fn keep(self) -> Keeping {
        let write = move || match self.write() {
            Ok(()) => tracing::debug!(path = %self.path.display(), "packed weights are kept"),
            Err(error) => {
                tracing::info!(%error, "packed weights can't be kept, the next start packs them again; --weights-cache off asks for none");
            }
        };
        let thread = std::thread::Builder::new().name("weights-cache".into()).spawn(write);
        Keeping(thread.inspect_err(|error| tracing::info!(%error, "no thread to keep packed weights")).ok())
    }

    fn write(&self) -> Result<(), PackedFileError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        make(folder).map_err(|source| PackedFileError::Io { path: folder.to_owned(), source })?;
        PackedFile::write(&self.path, &self.key, &self.parts)
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!(
                "the thread that keeps packed weights has panicked; the next start packs them again"
            );
        }
    }
}

/// A folder that only its owner may look into.
fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Says that a file was used.
fn touch(path: &Path) {
    let touched = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!(path = %path.display(), %error, "packed weights can't be marked as used");
    }
}

/// Removes what nobody has used for long, and what a start that was killed has left.
fn prune(folder: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(kept) = kept_for(&path) else { continue };
        let metadata = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file);
        let used = metadata.and_then(|metadata| metadata.modified().ok());
        if used.is_some_and(|used| now.duration_since(used).is_ok_and(|age| age > kept)) {
            // Another start may have been quicker.
            let _ = fs::remove_file(&path);
        }
    }
}

/// How long a file is kept; `None` for one that isn't ours: ours are `NAME-DIGITS.packed` and `NAME-DIGITS.UUID.part`.
fn kept_for(path: &Path) -> Option<Duration> {
    let mut parts = path.file_name()?.to_str()?.rsplitn(3, '.');
    let (suffix, second, rest) = (parts.next()?, parts.next()?, parts.next());
    let &(_, kept) = KEPT.iter().find(|(ours, _)| *ours == suffix)?;
    let stem = match (suffix, rest) {
        ("part", Some(rest)) if uuid::Uuid::try_parse(second).is_ok() => rest,
        // A model's name may have dots.
        ("packed", _) => second,
        _ => return None,
    };
    let digits = stem.rsplit('-').next()?;
    (digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(kept)
}

#[cfg(test)]
mod tests;
