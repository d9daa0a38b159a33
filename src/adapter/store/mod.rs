//! Adapters that were uploaded, where they outlive the process: a folder, S3 and compatible, GCS or Azure.
//!
//! Two kinds of object under `<root>/.store/v1/`:
//!
//! - `blobs/sha256/HEX`: an adapter's files, never changed, named by the digest of their bytes;
//! - `names/NAMESPACE/NAME.json`: a [`Pointer`], the only thing that ever changes, replaced as a whole and only by who saw
//!   its last state.
//!
//! A blob is written before the pointer that names it. So whatever is interrupted, a name has its old content or its new
//! one, and two writers never lose each other's change.

mod faults;
mod location;
mod pointer;

use std::{
    collections::HashSet,
    fs::File,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    Error as ObjectError, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion,
    path::Path,
};
use sha2::{Digest, Sha256};

pub use location::OpenError;
pub use pointer::{Entry, KEPT_VERSIONS, Pointer, StoredVersion};

use crate::{
    config::Location,
    domain::{AdapterName, Namespace},
    telemetry::{StoreFault, StoreFaults, StoreWork},
};

/// Largest pointer that is read.
const MAX_POINTER_BYTES: u64 = 4 << 20;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store can't be reached, or refuses.
    #[error("the adapter store does not answer: {0}")]
    Io(#[source] ObjectError),
    /// The store is known to fail; it was not asked once more.
    #[error("the adapter store has failed a moment ago ({}) and is tried again soon", .0.as_str())]
    Down(StoreFault),
    /// The system refused a lock or a thread.
    #[error("the adapter store can't be locked: {0}")]
    Lock(#[from] std::io::Error),
    /// Somebody else changed the pointer since it was read.
    #[error("'{0}' was changed by somebody else at the same moment: try again")]
    Lost(AdapterName),
    /// The versions of a name, with their cards, are more than a pointer may be.
    #[error(
        "the versions of '{name}' and their cards would take {bytes} bytes together, at most {MAX_POINTER_BYTES} are kept: \
         delete old versions, and aliases that hold them, or send a shorter card"
    )]
    Full {
        /// The adapter.
        name: AdapterName,
        /// What they would take.
        bytes: u64,
    },
    /// A pointer is not one.
    #[error("the store's object '{path}' is damaged: {reason}; restore it from a backup or delete it")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<ObjectError> for StoreError {
    fn from(error: ObjectError) -> Self {
        Self::Io(error)
    }
}

/// Which state of an object somebody saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    e_tag: Option<String>,
    version: Option<String>,
    size: u64,
    modified_ms: i64,
}

impl Stamp {
    fn of(meta: &ObjectMeta) -> Self {
        let ObjectMeta { e_tag, version, size, last_modified, .. } = meta.clone();
        Self { e_tag, version, size, modified_ms: last_modified.timestamp_millis() }
    }

    /// Whether both are the same content. A listing may know less than a read does.
    pub fn same(&self, other: &Self) -> bool {
        match (&self.e_tag, &other.e_tag) {
            (Some(one), Some(two)) => one == two,
            _ => (self.size, self.modified_ms) == (other.size, other.modified_ms),
        }
    }
}

/// A file system's lock, in this process and among processes. The file before the turn: fields drop in order.
struct Held {
    _file: File,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

/// Names an adapter in the store.
pub type Key = (Namespace, AdapterName);

/// Where uploads live.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// `<prefix>/.store/v1`
    root: Path,
    /// A file system's own lock file: it has no conditional writes.
    lock: Option<PathBuf>,
    /// The first in line for it here; a thread a waiter would leave none for loads.
    line: Arc<tokio::sync::Mutex<()>>,
    faults: StoreFaults,
    failed: Arc<faults::Failed>,
}

impl Store {
    /// The store at a location, which notes its `faults`. Nothing is written before the first upload.
    ///
    /// # Errors
    /// When the location can't be used.
    pub fn open(location: &Location, faults: StoreFaults) -> Result<Self, OpenError> {
        Ok(Self::over(location::open(location)?, faults))
    }

    /// The store in what is opened already: a client, a prefix, and a lock file where there are no conditional writes.
    pub(in crate::adapter) fn over(
        (objects, prefix, lock): (Arc<dyn ObjectStore>, Path, Option<PathBuf>),
        faults: StoreFaults,
    ) -> Self {
        let root = prefix.join(".store").join("v1");
        Self { objects, root, lock, line: Arc::default(), faults, failed: Arc::default() }
    }

    /// The name that a blob of these bytes has.
    pub fn blob_name(bytes: &[u8]) -> String {
        hex(&Sha256::digest(bytes))
    }

    /// Writes a blob; returns its name. Writing it again keeps it from being collected for a while.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn put_blob(&self, bytes: Bytes) -> Result<String, StoreError> {
        let name = Self::blob_name(&bytes);
        let size = bytes.len();
        self.wrote(size, self.objects.put(&self.blob(&name), bytes.into()).await)?;
        Ok(name)
    }

    /// Reads a blob and holds it against its name.
    ///
    /// # Errors
    /// When the store does not answer, or the bytes are not what the name says.
    pub async fn get_blob(&self, name: &str) -> Result<Bytes, StoreError> {
        let path = self.blob(name);
        let read = async { self.objects.get(&path).await?.bytes().await };
        let bytes = self.read_from(&path, read.await)?;
        let found = Self::blob_name(&bytes);
        if found == name {
            return Ok(bytes);
        }
        Err(StoreError::Damaged { path: path.to_string(), reason: format!("its bytes have SHA-256 {found}") })
    }

    /// All names with the states of their pointers.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self) -> Result<Vec<(Key, Stamp)>, StoreError> {
        let folder = self.root.clone().join("names");
        let listed = self.objects.list(Some(&folder)).try_collect().await;
        let listed: Vec<ObjectMeta> = self.noted(StoreWork::List, listed)?;
        // What is not a name of ours was not put there by a server: it is left alone.
        Ok(listed.iter().filter_map(|meta| Some((key_of(&meta.location)?, Stamp::of(meta)))).collect())
    }

    /// The pointer of a name; `None` where there is none.
    ///
    /// # Errors
    /// When the store does not answer or the pointer is damaged.
    pub async fn read(&self, key: &Key) -> Result<Option<(Pointer, Stamp)>, StoreError> {
        let path = self.name(key);
        let found = match self.read_from(&path, self.objects.get(&path).await) {
            Err(ObjectError::NotFound { .. }) => return Ok(None),
            found => found?,
        };
        let damaged = |reason: String| StoreError::Damaged { path: path.to_string(), reason };
        let stamp = Stamp::of(&found.meta);
        if found.meta.size > MAX_POINTER_BYTES {
            return Err(damaged(format!("it has {} bytes", found.meta.size)));
        }
        let bytes = self.read_from(&path, found.bytes().await)?;
        let pointer = Pointer::parse(&bytes).map_err(damaged)?;
        Ok(Some((pointer, stamp)))
    }

    /// Replaces the pointer that `seen` is the state of, or makes one where `seen` is `None`.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when it is in another state by now; nothing is changed then.
    pub async fn write(
        &self,
        key: &Key,
        pointer: &Pointer,
        seen: Option<&Stamp>,
    ) -> Result<Stamp, StoreError> {
        // What could not be read again must not be written.
        let (path, bytes) = (self.name(key), pointer.check_size(&key.1)?);
        let size = bytes.len() as u64;
        let _held = self.locked().await?;
        let mode = match seen {
            None => PutMode::Create,
            Some(seen) if self.lock.is_some() => {
                self.still(&path, seen, key).await?;
                PutMode::Overwrite
            }
            Some(seen) => {
                PutMode::Update(UpdateVersion { e_tag: seen.e_tag.clone(), version: seen.version.clone() })
            }
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = self.objects.put_opts(&path, bytes.into(), options).await;
        match self.wrote(size as usize, put) {
            Ok(put) => {
                let (e_tag, version) = (put.e_tag, put.version);
                Ok(Stamp { e_tag, version, size, modified_ms: 0 })
            }
            Err(ObjectError::AlreadyExists { .. } | ObjectError::Precondition { .. }) => {
                Err(StoreError::Lost(key.1.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the pointer away that `seen` is the state of. Where the store can't delete conditionally, a pointer that says
    /// so stays in its place.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn delete(&self, key: &Key, seen: &Stamp) -> Result<(), StoreError> {
        if self.lock.is_none() {
            return self.write(key, &Pointer::deleted(), Some(seen)).await.map(drop);
        }
        let path = self.name(key);
        let _held = self.locked().await?;
        self.still(&path, seen, key).await?;
        Ok(self.wrote(0, self.objects.delete(&path).await)?)
    }

    /// Deletes blobs that no pointer names and that nobody has written for `age`. Returns how many.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn collect(&self, age: Duration) -> Result<usize, StoreError> {
        // Blobs first: one that is written after this look is young, and one that is named after it was young too.
        let folder = self.root.clone().join("blobs");
        let blobs: Vec<ObjectMeta> = self.objects.list(Some(&folder)).try_collect().await?;
        let mut named = HashSet::new();
        for (key, _) in self.list().await? {
            if let Some((pointer, _)) = self.read(&key).await? {
                named.extend(pointer.versions().iter().map(|version| version.blob.clone()));
            }
        }
        let now = SystemTime::now();
        let old = |meta: &ObjectMeta| {
            now.duration_since(SystemTime::from(meta.last_modified)).is_ok_and(|since| since > age)
        };
        let unnamed = blobs.into_iter().filter(|meta| {
            let name = meta.location.filename().unwrap_or_default();
            !named.contains(name) && old(meta)
        });
        let mut gone = 0;
        for blob in unnamed {
            gone += usize::from(self.delete_old(&blob.location, &old).await?);
        }
        Ok(gone)
    }

    /// Deletes a blob that is still `old`: whoever uploads the same content again while others are looked through renews it.
    async fn delete_old(&self, path: &Path, old: impl Fn(&ObjectMeta) -> bool) -> Result<bool, StoreError> {
        match self.objects.head(path).await {
            Ok(meta) if old(&meta) => Ok(self.objects.delete(path).await.map(|()| true)?),
            Ok(_) | Err(ObjectError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the object at `path` is still in the state `seen`.
    async fn still(&self, path: &Path, seen: &Stamp, key: &Key) -> Result<(), StoreError> {
        match self.objects.head(path).await {
            Ok(meta) if Stamp::of(&meta).same(seen) => Ok(()),
            Ok(_) | Err(ObjectError::NotFound { .. }) => Err(StoreError::Lost(key.1.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// The lock of a file system's store, released when it is dropped. Other processes wait for it.
    async fn locked(&self) -> Result<Option<Held>, StoreError> {
        let Some(path) = self.lock.clone() else { return Ok(None) };
        let turn = Arc::clone(&self.line).lock_owned().await;
        let lock = move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        };
        let file = tokio::task::spawn_blocking(lock).await.map_err(std::io::Error::other)?;
        let file =
            file.inspect_err(|error| self.note_fault(StoreWork::Write, faults::fault_of(error), error))?;
        Ok(Some(Held { _file: file, _turn: turn }))
    }

    fn blob(&self, name: &str) -> Path {
        self.root.clone().join("blobs").join("sha256").join(name)
    }

    fn name(&self, (namespace, name): &Key) -> Path {
        self.root.clone().join("names").join(namespace.as_str()).join(format!("{name}.json"))
    }
}

/// The name that a pointer's path stands for.
fn key_of(path: &Path) -> Option<Key> {
    let parts: Vec<_> = path.parts().collect();
    let [.., namespace, file] = &parts[..] else { return None };
    let name = file.as_ref().strip_suffix(".json")?;
    Some((namespace.as_ref().parse().ok()?, name.parse().ok()?))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
