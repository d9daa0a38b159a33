//! Adapters by name: what there is, who sees it, which version a name stands for.
//!
//! The catalogue knows every name and little of each; tensors come into memory when a request needs them
//! ([`Residency`]). Names come from two places: folders under the adapters' root, which are only read and belong to all
//! tenants, and the [`Store`], which takes uploads and which other servers may change too.

mod changes;
mod error;
mod locks;
mod lookup;
mod seeds;
mod sync;
mod uploads;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use dashmap::DashMap;

pub use changes::Precondition;
pub use error::CatalogueError;
pub use seeds::{ScanError, ScanFailure};
pub use uploads::{Change, Checked, Published};

use super::{
    archive::{self, Limits},
    backbone::BackboneShape,
    folder::LoadedAdapter,
    generation::{AdapterLease, Generation},
    residency::{LoadError, Residence, Residency, ResidentKey},
    store::{Entry, Key, Pointer, Stamp, Store, StoreError, StoredVersion},
};
use crate::{
    config::Location,
    domain::{AdapterName, AdapterRef, Namespace, TenantId, Version},
    telemetry::Metrics,
};

use locks::Locks;
use sync::MissingPin;

/// Names that were looked for in vain and are not looked for again for a while: at most so many are remembered.
const MAX_MISSES: usize = 4096;

/// How a catalogue is set up.
#[derive(Debug, Clone)]
pub struct CatalogueConfig {
    /// Where adapters are; `None` has none.
    pub location: Option<Location>,
    /// What they must fit.
    pub backbone: BackboneShape,
    /// Memory for them, in bytes.
    pub host_bytes: u64,
    /// How soon a change by another server is seen at the latest.
    pub interval: Duration,
}

/// What a name stands for, as it was last seen.
#[derive(Debug)]
struct Name {
    pointer: Pointer,
    source: Source,
}

/// Where a name's content is.
#[derive(Debug, Clone)]
enum Source {
    /// A folder under the root.
    Seed(seeds::Folder),
    /// The store, in this state.
    Store(Stamp),
}

/// Adapters by name. Cheap to clone.
#[derive(Clone)]
pub struct Catalogue {
    inner: Arc<Inner>,
}

struct Inner {
    config: CatalogueConfig,
    store: Option<Store>,
    names: DashMap<Key, Arc<Name>>,
    /// The same in order, for lists.
    sorted: RwLock<HashMap<Namespace, BTreeSet<AdapterName>>>,
    /// Folders that an upload of the same name hides.
    hidden: DashMap<Key, Arc<Name>>,
    misses: DashMap<Key, Instant>,
    /// The aliases of an adapter and the versions that they stand for, so that nobody looks through all names for them.
    aliases: DashMap<Key, BTreeMap<AdapterName, Version>>,
    /// Held from reading a pointer to taking it up: what was read earlier is never taken up later.
    looks: Locks<Key>,
    /// Held while names of a namespace change: an alias and what it stands for are two names.
    changes: Locks<Namespace>,
    refused: seeds::Refused,
    residency: Residency,
    /// Pinned adapters that could not be brought into memory, and were told of.
    missing_pins: Mutex<HashMap<ResidentKey, MissingPin>>,
    metrics: Arc<Metrics>,
}

/// One version of an adapter, found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The namespace that it is in.
    pub namespace: Namespace,
    /// Its own name, where an alias led to it too.
    pub name: AdapterName,
    /// The version.
    pub version: StoredVersion,
    /// Whether it stays in memory.
    pub pinned: bool,
    /// Where it is.
    pub resident: Residence,
    source: Source,
}

impl Found {
    fn key(&self) -> ResidentKey {
        (self.namespace.clone(), self.name.clone(), self.version.version)
    }
}

impl Catalogue {
    /// A catalogue of what is there now; folders that were passed over are returned with it.
    ///
    /// # Errors
    /// When the location can't be used or the store does not answer.
    pub async fn open(
        config: CatalogueConfig,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Vec<ScanFailure>), CatalogueError> {
        let open = |location| Store::open(location, metrics.store_faults.clone());
        let store = config.location.as_ref().map(open).transpose()?;
        let catalogue = Self::new(config, store, metrics);
        let failures = catalogue.rescan_seeds().await?;
        catalogue.refresh().await?;
        catalogue.load_pinned().await;
        Ok((catalogue, failures))
    }

    /// A catalogue that knows nothing yet.
    fn new(config: CatalogueConfig, store: Option<Store>, metrics: Arc<Metrics>) -> Self {
        let residency = Residency::new(config.host_bytes, Arc::clone(&metrics));
        let inner = Inner {
            config,
            store,
            names: DashMap::new(),
            sorted: RwLock::default(),
            hidden: DashMap::new(),
            misses: DashMap::new(),
            aliases: DashMap::new(),
            looks: Locks::default(),
            changes: Locks::default(),
            refused: seeds::Refused::default(),
            residency,
            missing_pins: Mutex::default(),
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What adapters must fit.
    pub fn backbone(&self) -> &BackboneShape {
        &self.inner.config.backbone
    }

    /// A lease on what `wanted` means to `tenant`, loaded if need be.
    ///
    /// # Errors
    /// When it means nothing to them, or can't be loaded.
    pub async fn acquire(
        &self,
        tenant: &TenantId,
        wanted: &AdapterRef,
    ) -> Result<AdapterLease, CatalogueError> {
        let found = self.find(tenant, wanted).await?;
        Ok(self.lease(&found).await?)
    }

    /// A lease on a found version, loaded if need be.
    ///
    /// # Errors
    /// When it can't be loaded.
    pub async fn lease(&self, found: &Found) -> Result<AdapterLease, LoadError> {
        let key = found.key();
        if let Some(lease) = self.inner.residency.get(&key) {
            return Ok(lease);
        }
        if let (Source::Store(_), Some(store)) = (&found.source, &self.inner.store) {
            // Before it takes the place of one that is in memory.
            let failed =
                |error: StoreError| LoadError::Failed { name: found.name.clone(), reason: error.to_string() };
            store.check_up().map_err(failed)?;
        }
        let this = self.clone();
        let (bytes, loaded) = (found.version.bytes, found.clone());
        let load = async move { this.load(loaded).await };
        self.inner.residency.acquire(&key, bytes, load).await
    }

    /// Number of names, of all namespaces.
    pub fn len(&self) -> usize {
        self.inner.names.len()
    }

    /// Number of names in a namespace.
    pub fn count(&self, namespace: &Namespace) -> usize {
        let sorted = self.inner.sorted.read().unwrap_or_else(PoisonError::into_inner);
        sorted.get(namespace).map_or(0, BTreeSet::len)
    }

    /// Whether a name is known in a namespace.
    pub fn has(&self, namespace: &Namespace, name: &AdapterName) -> bool {
        self.inner.names.contains_key(&(namespace.clone(), name.clone()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inner.names.is_empty()
    }

    /// The files of an adapter, as an archive that an upload takes again.
    ///
    /// # Errors
    /// When `tenant` sees no such adapter, or its files can't be read.
    pub async fn content(
        &self,
        tenant: &TenantId,
        wanted: &AdapterRef,
    ) -> Result<(Found, bytes::Bytes), CatalogueError> {
        let found = self.find(tenant, wanted).await?;
        let bytes = self.files(&found).await?;
        Ok((found, bytes))
    }

    async fn files(&self, found: &Found) -> Result<bytes::Bytes, CatalogueError> {
        match &found.source {
            Source::Store(_) => Ok(self.store()?.get_blob(&found.version.blob).await?),
            Source::Seed(folder) => {
                let folder = folder.clone();
                let packed = blocking(move || folder.pack()).await?;
                Ok(packed.map_err(|error| CatalogueError::Unreadable {
                    name: found.name.clone(),
                    reason: error.to_string(),
                })?)
            }
        }
    }

    /// Reads a found version and holds it against what the catalogue says of it.
    async fn load(&self, found: Found) -> Result<Generation, LoadError> {
        let name = found.name.clone();
        let failed = |reason: String| LoadError::Failed { name: name.clone(), reason };
        let bytes = self.files(&found).await.map_err(|error| failed(error.to_string()))?;
        let wanted = found.version.version;
        let (own, created) = (found.name.clone(), created_at(&found.version));
        let loaded = blocking(move || {
            let files = archive::read(&bytes, &Limits::default()).map_err(|error| error.to_string())?;
            let loaded = LoadedAdapter::from_bytes(files, None).map_err(|error| error.to_string())?;
            let loaded = LoadedAdapter { written_at: created, ..loaded };
            Ok::<_, String>(loaded.into_generation(own))
        });
        let generation = loaded.await.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
        if generation.version() != wanted {
            return Err(failed(format!(
                "its files are of version {}, and {wanted} was wanted",
                generation.version()
            )));
        }
        self.backbone().check(&generation).map_err(|error| failed(error.to_string()))?;
        Ok(generation)
    }

    fn store(&self) -> Result<&Store, CatalogueError> {
        self.inner.store.as_ref().ok_or(CatalogueError::NoStore)
    }

    /// Takes up what a name stands for now.
    fn learn(&self, key: Key, pointer: Pointer, source: Source) {
        let is_store = matches!(source, Source::Store(_));
        if let Some(former) = self.inner.names.get(&key).map(|name| Arc::clone(&name)) {
            match (&former.source, is_store) {
                // An upload goes before a folder of the same name, which is kept for the day that the upload is deleted.
                (Source::Seed(_), true) => {
                    self.inner.hidden.insert(key.clone(), former);
                }
                (Source::Store(_), false) => {
                    self.inner.hidden.insert(key, Arc::new(Name { pointer, source }));
                    return;
                }
                _ => {}
            }
        }
        self.inner.misses.remove(&key);
        let name = Arc::new(Name { pointer, source });
        let former = self.inner.names.insert(key.clone(), Arc::clone(&name));
        self.drop_alias(&key, former.as_ref());
        if let Entry::Alias { name: target, version } = &name.pointer.entry {
            let mut aliases = self.inner.aliases.entry((key.0.clone(), target.clone())).or_default();
            aliases.insert(key.1.clone(), *version);
        }
        self.sorted_mut().entry(key.0.clone()).or_default().insert(key.1.clone());
        self.update_pins(&key, &name.pointer);
        self.inner.metrics.adapters.store.set(self.len() as i64);
    }

    /// Drops a name. A folder that it hid comes back.
    fn drop_name(&self, key: &Key) {
        let former = self.inner.names.remove(key);
        self.drop_alias(key, former.as_ref().map(|(_, former)| former));
        if let Some(names) = self.sorted_mut().get_mut(&key.0) {
            names.remove(&key.1);
        }
        if let Some((_, former)) = former {
            let resident = |version: &StoredVersion| (key.0.clone(), key.1.clone(), version.version);
            self.inner.residency.forget(&former.pointer.versions().iter().map(resident).collect());
            if matches!(former.source, Source::Store(_))
                && let Some((key, seed)) = self.inner.hidden.remove(key)
            {
                self.learn(key, seed.pointer.clone(), seed.source.clone());
            }
        }
        self.inner.metrics.adapters.store.set(self.len() as i64);
    }

    /// Forgets which adapter the alias `key` stood for, if it was one.
    fn drop_alias(&self, key: &Key, former: Option<&Arc<Name>>) {
        let Some(Entry::Alias { name: target, .. }) = former.map(|former| &former.pointer.entry) else {
            return;
        };
        let target = (key.0.clone(), target.clone());
        if let Some(mut aliases) = self.inner.aliases.get_mut(&target) {
            aliases.remove(&key.1);
        }
        self.inner.aliases.remove_if(&target, |_, aliases| aliases.is_empty());
    }

    fn sorted_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Namespace, BTreeSet<AdapterName>>> {
        self.inner.sorted.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current version of a pinned adapter stays in memory, and no other of it.
    fn update_pins(&self, key: &Key, pointer: &Pointer) {
        let Entry::Adapter { versions, pinned } = &pointer.entry else { return };
        for (at, version) in versions.iter().enumerate() {
            let resident = (key.0.clone(), key.1.clone(), version.version);
            if !*pinned || at + 1 < versions.len() {
                self.inner.residency.unpin(&resident);
            } else {
                // Another server's pin, or a new version that is larger, may be too much: it is served like one that is not
                // pinned, and load_pinned tells.
                let _ = self.inner.residency.pin(&resident, version.bytes);
            }
        }
    }
}

fn created_at(version: &StoredVersion) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_millis(version.created_ms)
}

/// Work that reads files or computes, off the threads that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CatalogueError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CatalogueError::Panicked)
}

#[cfg(test)]
pub mod fixed;
#[cfg(test)]
mod tests;
