//! Folders under the adapters' root: only read, for all tenants.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use super::{Catalogue, CatalogueError, Source, blocking};
use crate::{
    adapter::{
        archive,
        backbone::{BackboneShape, MisfitError},
        folder::{self, CARD_FILE, CONFIG_FILE, FolderError},
        generation::Generation,
        store::{Entry, Key, Pointer, StoredVersion},
        tensor_file::WeightsFormat,
    },
    domain::{AdapterName, NameError, Namespace},
};

/// A folder and the state of its files when it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    pub path: Arc<Path>,
    pub state: u64,
}

impl Folder {
    /// The folder's files as one.
    pub fn pack(&self) -> Result<bytes::Bytes, FolderError> {
        Ok(archive::pack(&folder::read_files(&self.path)?.0).into())
    }
}

/// Why a folder under the root was passed over.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The folder's name is none for an adapter.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name is not even text.
    #[error("the folder's name is not UTF-8")]
    NameEncoding,
    /// The folder is a link to somewhere else.
    #[error("it is a link out of the adapters' folder, which is not followed: put the folder itself there")]
    Outside,
    /// The system refuses to say.
    #[error("it can't be read: {0}")]
    Io(#[from] io::Error),
    /// The folder holds no sound adapter.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The adapter does not fit the model.
    #[error(transparent)]
    Misfit(#[from] MisfitError),
}

/// A folder that was passed over, and why.
#[derive(Debug)]
pub struct ScanFailure {
    /// The folder.
    pub path: PathBuf,
    /// Why.
    pub error: ScanError,
}

impl ScanFailure {
    /// Tells the log.
    pub fn warn(&self) {
        tracing::warn!(folder = %self.path.display(), error = %self.error, "an adapter is left out");
    }
}

/// What a look at the root found.
struct Scan {
    /// New and changed folders, read.
    read: Vec<(AdapterName, Folder, StoredVersion)>,
    /// All folders that are adapters, or were at the last look and have not changed.
    there: HashSet<AdapterName>,
    failures: Vec<ScanFailure>,
}

impl Catalogue {
    /// Takes up what is new, changed or gone under the root; folders whose name starts with a dot are not looked at. Returns
    /// the folders that were passed over, the unchanged ones among them only once.
    ///
    /// # Errors
    /// When the root can't be listed.
    pub async fn rescan_seeds(&self) -> Result<Vec<ScanFailure>, CatalogueError> {
        let config = &self.inner.config;
        let Some(root) = config.location.as_ref().and_then(|location| location.folder()).cloned() else {
            return Ok(Vec::new());
        };
        let known: Vec<(AdapterName, Folder)> = self.known_folders();
        let backbone = config.backbone.clone();
        let refused = self.inner.refused.clone();
        let scan = blocking(move || scan(&root, &known, &backbone, &refused))
            .await?
            .map_err(CatalogueError::Root)?;
        for (name, folder, version) in scan.read {
            let pointer = Pointer::new(Entry::Adapter { versions: vec![version], pinned: false });
            self.learn((Namespace::shared(), name), pointer, Source::Seed(folder));
        }
        for (name, _) in self.known_folders() {
            let key = (Namespace::shared(), name);
            if !scan.there.contains(&key.1) {
                self.inner.hidden.remove(&key);
                let seed =
                    self.inner.names.get(&key).is_some_and(|name| matches!(name.source, Source::Seed(_)));
                if seed {
                    self.drop_name(&key);
                }
            }
        }
        Ok(scan.failures)
    }

    fn known_folders(&self) -> Vec<(AdapterName, Folder)> {
        let folder = |key: &Key, source: &Source| match source {
            Source::Seed(folder) => Some((key.1.clone(), folder.clone())),
            Source::Store(_) => None,
        };
        let names = self.inner.names.iter().filter_map(|entry| folder(entry.key(), &entry.source));
        names.chain(self.inner.hidden.iter().filter_map(|entry| folder(entry.key(), &entry.source))).collect()
    }
}

/// Folders that were refused, with the state that was refused: they are not read again before they change.
pub(super) type Refused = Arc<dashmap::DashMap<PathBuf, u64>>;

fn scan(
    root: &Path,
    known: &[(AdapterName, Folder)],
    backbone: &BackboneShape,
    refused: &Refused,
) -> io::Result<Scan> {
    let real_root = fs::canonicalize(root)?;
    let mut paths = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    let known: HashMap<&Path, &(AdapterName, Folder)> =
        known.iter().map(|entry| (&*entry.1.path, entry)).collect();
    let mut scan = Scan { read: Vec::new(), there: HashSet::new(), failures: Vec::new() };
    for path in paths {
        let state = state_of(&path);
        if let Some((name, _)) = known.get(&*path).filter(|(_, folder)| folder.state == state) {
            scan.there.insert(name.clone());
            continue;
        }
        if refused.get(&path).is_some_and(|before| *before == state) {
            continue;
        }
        match read(&real_root, &path, backbone) {
            Ok((name, version)) => {
                refused.remove(&path);
                scan.there.insert(name.clone());
                scan.read.push((name, Folder { path: path.into(), state }, version));
            }
            Err(error) => {
                refused.insert(path.clone(), state);
                scan.failures.push(ScanFailure { path, error });
            }
        }
    }
    Ok(scan)
}

/// A number that changes when one of the folder's files does.
fn state_of(path: &Path) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut state = DefaultHasher::new();
    for file in
        [CONFIG_FILE, WeightsFormat::Safetensors.file_name(), WeightsFormat::TorchBin.file_name(), CARD_FILE]
    {
        let seen = fs::metadata(path.join(file)).ok().map(|file| {
            let modified = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            (file.len(), modified)
        });
        seen.hash(&mut state);
    }
    state.finish()
}

fn read(
    real_root: &Path,
    path: &Path,
    backbone: &BackboneShape,
) -> Result<(AdapterName, StoredVersion), ScanError> {
    if !fs::canonicalize(path)?.starts_with(real_root) {
        return Err(ScanError::Outside);
    }
    let name: AdapterName =
        path.file_name().and_then(|name| name.to_str()).ok_or(ScanError::NameEncoding)?.parse()?;
    let generation = folder::load(path)?.into_generation(name.clone());
    backbone.check(&generation)?;
    Ok((name, described(&generation, String::new())))
}

/// What lists show of a generation whose files are in `blob`.
pub(super) fn described(generation: &Generation, blob: String) -> StoredVersion {
    let weights = generation.weights();
    let created = generation.created_at().duration_since(UNIX_EPOCH).unwrap_or_default();
    StoredVersion {
        version: generation.version(),
        blob,
        created_ms: u64::try_from(created.as_millis()).unwrap_or(u64::MAX),
        method: generation.manifest().method,
        task: generation.manifest().task,
        prompt_length: weights.prompt_length(),
        rank: weights.rank(),
        max_length: weights.max_length(),
        hidden: weights.hidden(),
        parameters: weights.parameters(),
        bytes: weights.bytes(),
        card: serde_json::to_value(generation.card()).expect("a card is strings and finite numbers"),
    }
}
