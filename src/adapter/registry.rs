//! Adapters by name, and the generations of each.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use dashmap::{DashMap, Entry};

use super::{
    folder::{self, FolderError},
    generation::{AdapterLease, Generation},
    manifest::Task,
};
use crate::domain::{AdapterName, AdapterRef, NameError, VersionPrefix};

/// Generations of one adapter that are kept, the current one counted.
pub const KEPT_GENERATIONS: usize = 10;

/// Why an adapter is not served.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No adapter of that name.
    #[error("there is no adapter '{name}': {loaded} adapters are loaded; list them to see their names")]
    UnknownAdapter {
        /// The wanted name.
        name: AdapterName,
        /// How many there are.
        loaded: usize,
    },
    /// The adapter has no such generation any more.
    #[error(
        "adapter '{name}' has no version {version}: its current one is {current}, and the last {KEPT_GENERATIONS} are kept"
    )]
    UnknownVersion {
        /// The adapter.
        name: AdapterName,
        /// The wanted digits.
        version: VersionPrefix,
        /// What is current.
        current: crate::domain::Version,
    },
    /// The digits fit more than one generation.
    #[error("version {version} fits more than one of adapter '{name}': write more of its digits")]
    AmbiguousVersion {
        /// The adapter.
        name: AdapterName,
        /// The wanted digits.
        version: VersionPrefix,
    },
    /// The name is the backbone's.
    #[error(
        "an adapter can't be named '{0}': that is the model's name; rename the adapter or start with --model-name"
    )]
    ModelName(AdapterName),
    /// Trained for another width.
    #[error(
        "adapter '{name}' is for a hidden size of {found}, and model '{model}' has {expected}: it was trained on another model"
    )]
    Hidden {
        /// The adapter.
        name: AdapterName,
        /// The model served.
        model: String,
        /// The model's d.
        expected: usize,
        /// The adapter's d.
        found: usize,
    },
    /// Trained for the other kind of model.
    #[error(
        "adapter '{name}' has task_type {found}, and model '{model}' is served as {expected}: it was trained on another kind of model"
    )]
    Task {
        /// The adapter.
        name: AdapterName,
        /// The model served.
        model: String,
        /// What the model is.
        expected: Task,
        /// What the adapter is for.
        found: Task,
    },
    /// Trained on other weights.
    #[error(
        "adapter '{name}' was trained on weights of fingerprint {found}, and model '{model}' has {expected}: its scores would not hold"
    )]
    Fingerprint {
        /// The adapter.
        name: AdapterName,
        /// The model served.
        model: String,
        /// The model's fingerprint.
        expected: String,
        /// The fingerprint in the adapter's card.
        found: String,
    },
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
    Io(#[from] std::io::Error),
    /// The folder holds no sound adapter.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The adapter does not fit the backbone or the registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A folder that was passed over, and why.
#[derive(Debug)]
pub struct ScanFailure {
    /// The folder.
    pub path: PathBuf,
    /// Why.
    pub error: ScanError,
}

/// What adapters must fit.
#[derive(Debug, Clone)]
pub struct BackboneShape {
    /// Hidden size d.
    pub hidden: usize,
    /// Encoder-decoder or decoder-only.
    pub task: Task,
    /// The model's name, which no adapter may bear.
    pub name: String,
    /// The fingerprint of its weights, where known; compared with cards that have one.
    pub fingerprint: Option<String>,
}

impl BackboneShape {
    /// Whether a generation can run on this backbone under its name.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(&self, generation: &Generation) -> Result<(), RegistryError> {
        let name = || generation.name().clone();
        let model = || self.name.clone();
        if generation.name().as_str() == self.name {
            return Err(RegistryError::ModelName(name()));
        }
        let (task, hidden) = (generation.manifest().task, generation.weights().hidden());
        if task != self.task {
            return Err(RegistryError::Task {
                name: name(),
                model: model(),
                expected: self.task,
                found: task,
            });
        }
        if hidden != self.hidden {
            let expected = self.hidden;
            return Err(RegistryError::Hidden { name: name(), model: model(), expected, found: hidden });
        }
        match (&self.fingerprint, generation.card().base_fingerprint()) {
            (Some(expected), Some(found)) if expected != found => Err(RegistryError::Fingerprint {
                name: name(),
                model: model(),
                expected: expected.clone(),
                found: found.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

/// The generations of one adapter.
struct Generations {
    current: Arc<Generation>,
    /// Former ones, the latest last; at most [`KEPT_GENERATIONS`] - 1.
    former: VecDeque<Arc<Generation>>,
    /// Older ones that live only as long as requests hold them.
    leased: Vec<Weak<Generation>>,
}

impl Generations {
    fn new(current: Arc<Generation>) -> Self {
        Self { current, former: VecDeque::new(), leased: Vec::new() }
    }

    /// Makes `next` current. Content that was there before is taken up again, not kept twice.
    fn publish(&mut self, next: Arc<Generation>) -> Arc<Generation> {
        let version = next.version();
        if self.current.version() == version {
            return Arc::clone(&self.current);
        }
        let known = self.all().find(|generation| generation.version() == version);
        let next = known.unwrap_or(next);
        self.former.retain(|generation| generation.version() != version);
        self.former.push_back(std::mem::replace(&mut self.current, Arc::clone(&next)));
        if self.former.len() >= KEPT_GENERATIONS {
            self.leased.extend(self.former.pop_front().map(|oldest| Arc::downgrade(&oldest)));
        }
        self.leased.retain(|generation| {
            generation.upgrade().is_some_and(|generation| generation.version() != version)
        });
        next
    }

    /// Every generation that is still there, the current one first.
    fn all(&self) -> impl Iterator<Item = Arc<Generation>> {
        std::iter::once(Arc::clone(&self.current))
            .chain(self.former.iter().rev().cloned())
            .chain(self.leased.iter().filter_map(Weak::upgrade))
    }

    fn pinned(&self, wanted: &VersionPrefix) -> Result<Arc<Generation>, RegistryError> {
        let name = || self.current.name().clone();
        let mut fitting = self.all().filter(|generation| wanted.matches(&generation.version()));
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => {
                Err(RegistryError::AmbiguousVersion { name: name(), version: wanted.clone() })
            }
            (None, _) => Err(RegistryError::UnknownVersion {
                name: name(),
                version: wanted.clone(),
                current: self.current.version(),
            }),
        }
    }
}

/// Adapters by name. Shared by all threads; looking one up touches nothing of the others.
pub struct Registry {
    backbone: BackboneShape,
    adapters: DashMap<AdapterName, Generations>,
}

impl Registry {
    /// An empty registry for adapters of one backbone.
    pub fn new(backbone: BackboneShape) -> Self {
        Self { backbone, adapters: DashMap::new() }
    }

    /// A registry of the sound adapters in `<root>/<name>/`, and the folders that were passed over.
    ///
    /// # Errors
    /// When the root can't be listed.
    pub fn scan(root: &Path, backbone: BackboneShape) -> std::io::Result<(Self, Vec<ScanFailure>)> {
        let registry = Self::new(backbone);
        let failures = registry.rescan(root)?;
        Ok((registry, failures))
    }

    /// Publishes what is new or changed in `<root>/<name>/`; folders whose name starts with a dot are not
    /// looked at, and what is gone from disk stays. Returns the folders that were passed over.
    ///
    /// # Errors
    /// When the root can't be listed.
    pub fn rescan(&self, root: &Path) -> std::io::Result<Vec<ScanFailure>> {
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
        let failure = |path: PathBuf| {
            let error = self.load_folder(&real_root, &path).err()?;
            Some(ScanFailure { path, error })
        };
        Ok(paths.into_iter().filter_map(failure).collect())
    }

    fn load_folder(&self, real_root: &Path, path: &Path) -> Result<(), ScanError> {
        if !fs::canonicalize(path)?.starts_with(real_root) {
            return Err(ScanError::Outside);
        }
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(ScanError::NameEncoding)?;
        let generation = folder::load(path)?.into_generation(name.parse()?);
        self.publish(generation)?;
        Ok(())
    }

    /// The backbone that adapters must fit.
    pub fn backbone(&self) -> &BackboneShape {
        &self.backbone
    }

    /// A lease on the current generation of an adapter, or on the pinned one.
    ///
    /// # Errors
    /// When there is no such adapter or version.
    pub fn acquire(&self, wanted: &AdapterRef) -> Result<AdapterLease, RegistryError> {
        let Some(generations) = self.adapters.get(&wanted.name) else {
            let (name, loaded) = (wanted.name.clone(), self.adapters.len());
            return Err(RegistryError::UnknownAdapter { name, loaded });
        };
        let generation = match &wanted.version {
            None => Arc::clone(&generations.current),
            Some(version) => generations.pinned(version)?,
        };
        Ok(AdapterLease::new(generation))
    }

    /// The current generation of an adapter.
    pub fn get(&self, name: &AdapterName) -> Option<Arc<Generation>> {
        self.adapters.get(name).map(|generations| Arc::clone(&generations.current))
    }

    /// The generations of an adapter that are still there, the current one first.
    pub fn versions(&self, name: &AdapterName) -> Option<Vec<Arc<Generation>>> {
        self.adapters.get(name).map(|generations| generations.all().collect())
    }

    /// The current generations in the order of their names.
    pub fn list(&self) -> Vec<Arc<Generation>> {
        let mut list: Vec<_> = self.adapters.iter().map(|entry| Arc::clone(&entry.current)).collect();
        list.sort_by(|a, b| a.name().cmp(b.name()));
        list
    }

    /// Number of adapters.
    pub fn len(&self) -> usize {
        self.adapters.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.adapters.is_empty()
    }

    /// Makes a generation the current one of its name. Requests that hold a former one keep it.
    /// Returns what is current now: of equal content the one that was there before.
    ///
    /// # Errors
    /// When it does not fit the backbone.
    pub fn publish(&self, generation: Generation) -> Result<Arc<Generation>, RegistryError> {
        self.backbone.check(&generation)?;
        let generation = Arc::new(generation);
        Ok(match self.adapters.entry(generation.name().clone()) {
            Entry::Occupied(mut entry) => entry.get_mut().publish(generation),
            Entry::Vacant(entry) => Arc::clone(&entry.insert(Generations::new(generation)).current),
        })
    }

    /// Forgets an adapter and all its generations; requests that hold one keep it. Returns what was current.
    pub fn remove(&self, name: &AdapterName) -> Option<Arc<Generation>> {
        self.adapters.remove(name).map(|(_, generations)| generations.current)
    }
}
