//! Uploads: files to a checked adapter, that to the current version of a name. Whoever calls has the right to.

use std::{
    collections::HashSet,
    time::{Instant, SystemTime},
};

use super::{
    Catalogue, CatalogueError, Found, Precondition, Source, blocking,
    changes::{Next, check},
    seeds::described,
};
use crate::{
    adapter::{
        archive,
        folder::{AdapterBytes, LoadedAdapter},
        generation::Generation,
        residency::Residence,
        store::{Entry, KEPT_VERSIONS, Pointer, Store, StoredVersion},
    },
    domain::{AdapterName, Namespace, Version},
};

/// What an upload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// There was no adapter of the name.
    Created,
    /// It has a new version.
    Updated,
    /// It had this version already.
    Unchanged,
}

/// An adapter's files, found sound and fit for the model, and not yet stored.
#[derive(Debug)]
pub struct Checked {
    began: Instant,
    generation: Generation,
    bundle: Vec<u8>,
}

impl Checked {
    /// Its content address.
    pub fn version(&self) -> Version {
        self.generation.version()
    }
}

/// An upload that is served.
#[derive(Debug, Clone)]
pub struct Published {
    /// What it did.
    pub change: Change,
    /// The adapter.
    pub found: Found,
}

impl Catalogue {
    /// Reads `files` as an adapter named `name` and holds them against the model. Nothing is stored yet.
    ///
    /// # Errors
    /// When they are not sound or do not fit the model.
    pub async fn check(&self, name: &AdapterName, files: AdapterBytes) -> Result<Checked, CatalogueError> {
        let began = Instant::now();
        let (own, backbone) = (name.clone(), self.backbone().clone());
        let checked = blocking(move || {
            let bundle = archive::pack(&files);
            let loaded =
                LoadedAdapter { written_at: SystemTime::now(), ..LoadedAdapter::from_bytes(files, None)? };
            let generation = loaded.into_generation(own);
            backbone.check(&generation)?;
            Ok(Checked { began, generation, bundle })
        });
        checked.await?
    }

    /// Makes what was checked the current version of its name. Requests that run keep the version that they began with.
    ///
    /// # Errors
    /// When the condition does not hold, the name is taken, or the store fails. Nothing is changed then.
    pub async fn publish(
        &self,
        namespace: &Namespace,
        checked: Checked,
        precondition: Precondition,
    ) -> Result<Published, CatalogueError> {
        let (Checked { began, generation, bundle }, store) = (checked, self.store()?);
        let (name, key) = (generation.name().clone(), (namespace.clone(), generation.name().clone()));
        let fresh = described(&generation, Store::blob_name(&bundle));
        let (mut change, mut published) = (Change::Created, (fresh.clone(), false));
        let mut next = |pointer: Option<&Pointer>| {
            let (mut versions, pinned) = versions_of(&name, pointer)?;
            change = match versions.last() {
                None => Change::Created,
                Some(current) if current.version == fresh.version => Change::Unchanged,
                Some(_) => Change::Updated,
            };
            published = (fresh.clone(), pinned);
            if change == Change::Unchanged {
                published.0 = versions.pop().expect("it was just looked at");
                return Ok(Next::Keep);
            }
            // Content that was there before is taken up again, not kept twice.
            versions.retain(|known| known.version != fresh.version);
            versions.push(fresh.clone());
            drop_oldest(&mut versions, &self.aliased(&key));
            Ok(Next::Write(Pointer::new(Entry::Adapter { versions, pinned })))
        };
        // Before anything is written: a change that must fail leaves nothing behind.
        let seen = store.read(&key).await?;
        let seen = seen.as_ref().map(|(pointer, _)| pointer);
        check(&name, seen, precondition)?;
        if let Next::Write(pointer) = next(seen)? {
            pointer.check_size(&name)?;
        }
        store.put_blob(bundle.into()).await?;
        let _turn = self.inner.changes.lock(namespace).await;
        let stamp = self.change(&key, precondition, next).await?;
        self.inner.residency.offer((namespace.clone(), name.clone(), fresh.version), generation);
        self.inner.metrics.adapter_swap_duration.observe(began.elapsed());
        // What this upload made, whatever somebody else has made of the name since.
        let (version, pinned) = published;
        let source = Source::Store(stamp.expect("what was written or kept is there"));
        let mut found =
            Found { namespace: namespace.clone(), name, version, pinned, resident: Residence::Store, source };
        found.resident = self.inner.residency.place(&found.key());
        Ok(Published { change, found })
    }

    /// [`Catalogue::check`], then [`Catalogue::publish`].
    ///
    /// # Errors
    /// As both; nothing is changed then.
    pub async fn put(
        &self,
        namespace: &Namespace,
        name: &AdapterName,
        files: AdapterBytes,
        precondition: Precondition,
    ) -> Result<Published, CatalogueError> {
        let checked = self.check(name, files).await?;
        self.publish(namespace, checked, precondition).await
    }
}

/// The versions that an upload finds, and whether they are pinned.
fn versions_of(
    name: &AdapterName,
    pointer: Option<&Pointer>,
) -> Result<(Vec<StoredVersion>, bool), CatalogueError> {
    match pointer.map(|pointer| &pointer.entry) {
        Some(Entry::Adapter { versions, pinned }) => Ok((versions.clone(), *pinned)),
        Some(Entry::Alias { .. }) => Err(CatalogueError::OtherKind(name.clone(), "an alias")),
        Some(Entry::Deleted) | None => Ok((Vec::new(), false)),
    }
}

/// Lets the oldest versions go, until at most [`KEPT_VERSIONS`] are left beside those that aliases stand for.
fn drop_oldest(versions: &mut Vec<StoredVersion>, kept: &HashSet<Version>) {
    let mut surplus = versions.len().saturating_sub(KEPT_VERSIONS);
    versions.retain(|known| {
        let goes = surplus > 0 && !kept.contains(&known.version);
        surplus -= usize::from(goes);
        !goes
    });
}
