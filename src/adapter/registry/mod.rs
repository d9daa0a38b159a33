//! Adapters by name, and the generations of each.

mod backbone;
mod error;
mod generations;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use dashmap::{DashMap, Entry};
use generations::Generations;

pub use self::{
    backbone::BackboneShape,
    error::{RegistryError, ScanError, ScanFailure},
};
use super::{
    folder,
    generation::{AdapterLease, Generation},
};
use crate::domain::{AdapterName, AdapterRef};

/// Generations of one adapter that are kept, the current one counted.
pub const KEPT_GENERATIONS: usize = 10;

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
