//! Changing what names stand for. Whoever calls has the right to.

use std::{
    collections::HashSet,
    time::{Instant, SystemTime},
};

use super::{Catalogue, CatalogueError, Found, Source, blocking, lookup::choose, seeds::described};
use crate::{
    adapter::{
        archive,
        folder::{AdapterBytes, LoadedAdapter},
        store::{Entry, KEPT_VERSIONS, Key, Pointer, Stamp, Store, StoreError, StoredVersion},
    },
    domain::{AdapterName, AdapterRef, Namespace, Version, VersionPrefix},
};

/// How often a change is tried when others change the same name at the same moment.
const TRIES: usize = 16;

/// When a change is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// In any case.
    #[default]
    None,
    /// Only if the current version is this one (`If-Match`).
    Is(Version),
    /// Only if there is one (`If-Match: *`).
    Present,
    /// Only if there is none yet (`If-None-Match: *`).
    Absent,
}

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

/// An upload that is served.
#[derive(Debug, Clone)]
pub struct Published {
    /// What it did.
    pub change: Change,
    /// The adapter.
    pub found: Found,
}

/// What a change makes of a pointer.
enum Next {
    Write(Pointer),
    Delete,
    Keep,
}

impl Catalogue {
    /// Makes `files` the current version of `name`. Requests that run keep the version that they began with.
    ///
    /// # Errors
    /// When the files are not sound or do not fit the model, the condition does not hold, or the store fails. Nothing is changed
    /// then.
    pub async fn put(
        &self,
        namespace: &Namespace,
        name: &AdapterName,
        files: AdapterBytes,
        precondition: Precondition,
    ) -> Result<Published, CatalogueError> {
        let began = Instant::now();
        let (own, backbone) = (name.clone(), self.backbone().clone());
        let checked = blocking(move || {
            let bundle = archive::pack(&files);
            let loaded =
                LoadedAdapter { written_at: SystemTime::now(), ..LoadedAdapter::from_bytes(files, None)? };
            let generation = loaded.into_generation(own);
            backbone.check(&generation)?;
            Ok::<_, CatalogueError>((generation, bundle))
        });
        let (generation, bundle) = checked.await??;
        let key = (namespace.clone(), name.clone());
        // Before anything is written: a change that must fail leaves nothing behind.
        let seen = self.store()?.read(&key).await?;
        check(name, seen.as_ref().map(|(pointer, _)| pointer), precondition)?;
        let blob = self.store()?.put_blob(bundle.into()).await?;
        let fresh = described(&generation, blob);
        let version = fresh.version;
        let kept = self.aliased(&key);
        let mut change = Change::Created;
        self.change(&key, precondition, |pointer| {
            let (mut versions, pinned) = match pointer.map(|pointer| &pointer.entry) {
                Some(Entry::Adapter { versions, pinned }) => (versions.clone(), *pinned),
                Some(Entry::Alias { .. }) => return Err(CatalogueError::OtherKind(name.clone(), "an alias")),
                Some(Entry::Deleted) | None => (Vec::new(), false),
            };
            change = match versions.last() {
                None => Change::Created,
                Some(current) if current.version == version => Change::Unchanged,
                Some(_) => Change::Updated,
            };
            if change == Change::Unchanged {
                return Ok(Next::Keep);
            }
            // Content that was there before is taken up again, not kept twice.
            versions.retain(|known| known.version != version);
            versions.push(fresh.clone());
            drop_oldest(&mut versions, &kept);
            Ok(Next::Write(Pointer::new(Entry::Adapter { versions, pinned })))
        })
        .await?;
        self.inner.residency.offer((namespace.clone(), name.clone(), version), generation);
        self.inner.metrics.adapter_swap_duration.observe(began.elapsed());
        let found = self.known_in(namespace, &AdapterRef { name: name.clone(), version: None })?;
        let found = found.ok_or_else(|| CatalogueError::Unknown { name: name.clone() })?;
        Ok(Published { change, found })
    }

    /// Deletes an adapter with all its versions, or an alias where `alias` says so.
    ///
    /// # Errors
    /// When there is none in this namespace, an alias stands for it, or the condition does not hold.
    pub async fn delete(
        &self,
        namespace: &Namespace,
        name: &AdapterName,
        alias: bool,
        precondition: Precondition,
    ) -> Result<(), CatalogueError> {
        let key = (namespace.clone(), name.clone());
        if let Some((alias, version)) = self.aliases(&key).into_iter().next() {
            return Err(CatalogueError::Aliased { name: name.clone(), version, alias });
        }
        self.change(&key, precondition, |pointer| match (pointer.map(|pointer| &pointer.entry), alias) {
            (Some(Entry::Adapter { .. }), false) | (Some(Entry::Alias { .. }), true) => Ok(Next::Delete),
            (Some(Entry::Adapter { .. }), true) => Err(CatalogueError::OtherKind(name.clone(), "an adapter")),
            (Some(Entry::Alias { .. }), false) => Err(CatalogueError::OtherKind(name.clone(), "an alias")),
            (Some(Entry::Deleted) | None, _) => Err(self.absent(&key)),
        })
        .await
    }

    /// Deletes one version of an adapter. The newest of those left is current then; with its last version the adapter goes.
    ///
    /// # Errors
    /// When there is none such in this namespace, an alias stands for it, or the condition does not hold.
    pub async fn delete_version(
        &self,
        namespace: &Namespace,
        name: &AdapterName,
        wanted: &VersionPrefix,
        precondition: Precondition,
    ) -> Result<(), CatalogueError> {
        let key = (namespace.clone(), name.clone());
        let aliases = self.aliases(&key);
        let reference = AdapterRef { name: name.clone(), version: Some(wanted.clone()) };
        let mut gone = None;
        self.change(&key, precondition, |pointer| {
            let Some(pointer) = pointer else { return Err(self.absent(&key)) };
            let Entry::Adapter { versions, pinned } = &pointer.entry else { return Err(self.absent(&key)) };
            let version = choose(pointer, &reference)?.version;
            if let Some((alias, _)) = aliases.iter().find(|(_, aliased)| *aliased == version) {
                return Err(CatalogueError::Aliased { name: name.clone(), version, alias: alias.clone() });
            }
            gone = Some(version);
            let left: Vec<StoredVersion> =
                versions.iter().filter(|known| known.version != version).cloned().collect();
            if left.is_empty() {
                return Ok(Next::Delete);
            }
            Ok(Next::Write(Pointer::new(Entry::Adapter { versions: left, pinned: *pinned })))
        })
        .await?;
        if let Some(version) = gone {
            self.inner.residency.forget(&HashSet::from([(namespace.clone(), name.clone(), version)]));
        }
        Ok(())
    }

    /// Keeps an adapter's current version in memory from now on, or not. Loads it if need be.
    ///
    /// # Errors
    /// When there is none in this namespace or it can't be loaded.
    pub async fn set_pinned(
        &self,
        namespace: &Namespace,
        name: &AdapterName,
        pinned: bool,
    ) -> Result<Found, CatalogueError> {
        let key = (namespace.clone(), name.clone());
        self.change(&key, Precondition::None, |pointer| match pointer.map(|pointer| &pointer.entry) {
            Some(Entry::Adapter { pinned: now, .. }) if *now == pinned => Ok(Next::Keep),
            Some(Entry::Adapter { versions, .. }) => {
                Ok(Next::Write(Pointer::new(Entry::Adapter { versions: versions.clone(), pinned })))
            }
            Some(Entry::Alias { .. }) => Err(CatalogueError::OtherKind(name.clone(), "an alias")),
            Some(Entry::Deleted) | None => Err(self.absent(&key)),
        })
        .await?;
        if pinned {
            self.load_pinned().await;
        }
        let found = self.known_in(namespace, &AdapterRef { name: name.clone(), version: None })?;
        found.ok_or_else(|| CatalogueError::Unknown { name: name.clone() })
    }

    /// Lets `alias` stand for a version of an adapter in the same namespace; the current one is meant where none is said. The
    /// version is kept for as long as it does.
    ///
    /// # Errors
    /// When there is no such adapter, it is an alias itself, or an adapter bears the alias's name.
    pub async fn set_alias(
        &self,
        namespace: &Namespace,
        alias: &AdapterName,
        target: &AdapterRef,
        precondition: Precondition,
    ) -> Result<(Change, Found), CatalogueError> {
        let key = (namespace.clone(), target.name.clone());
        self.reread(&key).await?;
        let found = self.known_in(namespace, target)?;
        let found = found.ok_or_else(|| CatalogueError::Unknown { name: target.name.clone() })?;
        if found.name != target.name {
            return Err(CatalogueError::AliasOfAlias(target.name.clone()));
        }
        if alias.as_str() == self.backbone().name {
            return Err(crate::adapter::backbone::MisfitError::ModelName(alias.clone()).into());
        }
        let entry = Entry::Alias { name: found.name.clone(), version: found.version.version };
        let mut change = Change::Created;
        let own = (namespace.clone(), alias.clone());
        if self.inner.names.get(&own).is_some_and(|name| matches!(name.source, Source::Seed(_))) {
            return Err(CatalogueError::OtherKind(alias.clone(), "an adapter that comes with the server"));
        }
        self.change(&own, precondition, |pointer| match pointer.map(|pointer| &pointer.entry) {
            Some(Entry::Adapter { .. }) => Err(CatalogueError::OtherKind(alias.clone(), "an adapter")),
            Some(now) if *now == entry => {
                change = Change::Unchanged;
                Ok(Next::Keep)
            }
            now => {
                change =
                    if matches!(now, Some(Entry::Alias { .. })) { Change::Updated } else { Change::Created };
                Ok(Next::Write(Pointer::new(entry.clone())))
            }
        })
        .await?;
        Ok((change, found))
    }

    /// Reads a pointer, changes it and writes it, again where somebody else was faster.
    async fn change(
        &self,
        key: &Key,
        precondition: Precondition,
        mut next: impl FnMut(Option<&Pointer>) -> Result<Next, CatalogueError>,
    ) -> Result<(), CatalogueError> {
        let store = self.store()?;
        for _ in 0..TRIES {
            let seen = store.read(key).await?;
            let pointer = seen.as_ref().map(|(pointer, _)| pointer);
            check(&key.1, pointer, precondition)?;
            let next = next(pointer)?;
            match self.write(store, key, next, seen.as_ref().map(|(_, stamp)| stamp)).await {
                Err(CatalogueError::Store(StoreError::Lost(_))) => {}
                done => return done,
            }
        }
        Err(StoreError::Lost(key.1.clone()).into())
    }

    async fn write(
        &self,
        store: &Store,
        key: &Key,
        next: Next,
        seen: Option<&Stamp>,
    ) -> Result<(), CatalogueError> {
        match (next, seen) {
            (Next::Write(pointer), seen) => {
                store.write(key, &pointer, seen).await?;
            }
            (Next::Delete, Some(seen)) => store.delete(key, seen).await?,
            (Next::Delete | Next::Keep, _) => {}
        }
        // As the store has it now, with the stamp that the next look will compare.
        self.reread(key).await.map(drop)
    }

    /// Why there is nothing to change.
    fn absent(&self, key: &Key) -> CatalogueError {
        let shared = (Namespace::shared(), key.1.clone());
        match self.inner.names.get(&shared).map(|name| name.source.clone()) {
            Some(Source::Seed(_)) => CatalogueError::ReadOnly(key.1.clone()),
            Some(Source::Store(_)) if !key.0.is_shared() => CatalogueError::SharedOnly(key.1.clone()),
            _ => CatalogueError::Unknown { name: key.1.clone() },
        }
    }

    /// The aliases of an adapter, and the versions that they stand for.
    fn aliases(&self, (namespace, name): &Key) -> Vec<(AdapterName, Version)> {
        let alias = |entry: dashmap::mapref::multiple::RefMulti<'_, Key, std::sync::Arc<super::Name>>| match (
            &entry.key().0 == namespace,
            &entry.pointer.entry,
        ) {
            (true, Entry::Alias { name: target, version }) if target == name => {
                Some((entry.key().1.clone(), *version))
            }
            _ => None,
        };
        self.inner.names.iter().filter_map(alias).collect()
    }

    fn aliased(&self, key: &Key) -> HashSet<Version> {
        self.aliases(key).into_iter().map(|(_, version)| version).collect()
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

/// Whether the condition of a change holds.
fn check(
    name: &AdapterName,
    pointer: Option<&Pointer>,
    precondition: Precondition,
) -> Result<(), CatalogueError> {
    let current = pointer.and_then(|pointer| match &pointer.entry {
        Entry::Adapter { versions, .. } => versions.last().map(|current| current.version),
        Entry::Alias { version, .. } => Some(*version),
        Entry::Deleted => None,
    });
    let wanted = match (precondition, current) {
        (Precondition::None, _) | (Precondition::Absent, None) | (Precondition::Present, Some(_)) => {
            return Ok(());
        }
        (Precondition::Is(wanted), Some(current)) if wanted == current => return Ok(()),
        (Precondition::Absent, Some(_)) => "is not there",
        (Precondition::Present, None) => "is there",
        (Precondition::Is(_), _) => "is at the version of If-Match",
    };
    let found = current.map_or("not there".to_owned(), |current| format!("at {current}"));
    Err(CatalogueError::Precondition { name: name.clone(), found, wanted })
}
