//! Changing what names stand for. Whoever calls has the right to.

use std::collections::{BTreeMap, HashSet};

use super::{Catalogue, CatalogueError, Change, Found, Source, lookup::choose};
use crate::{
    adapter::{
        residency::Residence,
        store::{Entry, Key, Pointer, Stamp, Store, StoreError, StoredVersion},
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
    /// Only if there is none yet, or it is at this version already.
    AbsentOr(Version),
}

/// What a change makes of a pointer.
pub(super) enum Next {
    Write(Pointer),
    Delete,
    Keep,
}

impl Catalogue {
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
        let _turn = self.inner.changes.lock(namespace).await;
        if let Some((alias, version)) = self.aliases(&key).into_iter().next() {
            return Err(CatalogueError::Aliased { name: name.clone(), version, alias });
        }
        self.change(&key, precondition, |pointer| match (pointer.map(|pointer| &pointer.entry), alias) {
            (Some(Entry::Adapter { .. }), false) | (Some(Entry::Alias { .. }), true) => Ok(Next::Delete),
            (Some(Entry::Adapter { .. }), true) => Err(CatalogueError::OtherKind(name.clone(), "an adapter")),
            (Some(Entry::Alias { .. }), false) => Err(CatalogueError::OtherKind(name.clone(), "an alias")),
            (Some(Entry::Deleted) | None, _) => Err(self.absent(&key)),
        })
        .await?;
        Ok(())
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
        let _turn = self.inner.changes.lock(namespace).await;
        let aliases = self.aliases(&key);
        let reference = AdapterRef { name: name.clone(), version: Some(wanted.clone()) };
        let mut gone = None;
        self.change(&key, precondition, |pointer| {
            let Some(pointer) = pointer else { return Err(self.absent(&key)) };
            let Entry::Adapter { versions, pinned } = &pointer.entry else { return Err(self.absent(&key)) };
            let version = choose(pointer, &reference)?.version;
            if let Some((alias, _)) = aliases.iter().find(|(_, aliased)| **aliased == version) {
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
    /// When there is none in this namespace, the condition does not hold, too much is pinned already, or it can't be loaded.
    pub async fn set_pinned(
        &self,
        namespace: &Namespace,
        name: &AdapterName,
        pinned: bool,
        precondition: Precondition,
    ) -> Result<Found, CatalogueError> {
        let key = (namespace.clone(), name.clone());
        self.change(&key, precondition, |pointer| match pointer.map(|pointer| &pointer.entry) {
            Some(Entry::Adapter { pinned: now, .. }) if *now == pinned => Ok(Next::Keep),
            Some(Entry::Adapter { versions, .. }) => {
                if let Some(current) = versions.last().filter(|_| pinned) {
                    let resident = (namespace.clone(), name.clone(), current.version);
                    self.inner.residency.check_pin(&resident, current.bytes)?;
                }
                Ok(Next::Write(Pointer::new(Entry::Adapter { versions: versions.clone(), pinned })))
            }
            Some(Entry::Alias { .. }) => Err(CatalogueError::OtherKind(name.clone(), "an alias")),
            Some(Entry::Deleted) | None => Err(self.absent(&key)),
        })
        .await?;
        let wanted = AdapterRef { name: name.clone(), version: None };
        let found = self.known_in(namespace, &wanted)?;
        let mut found = found.ok_or_else(|| CatalogueError::Unknown { name: name.clone() })?;
        if pinned && found.resident == Residence::Store {
            self.lease(&found).await?;
            found.resident = Residence::Host;
        }
        Ok(found)
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
        let _turn = self.inner.changes.lock(namespace).await;
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

    /// Reads a pointer, changes it and writes it, again where somebody else was faster. Returns the state that it is in
    /// then, `None` where there is none left.
    pub(super) async fn change(
        &self,
        key: &Key,
        precondition: Precondition,
        mut next: impl FnMut(Option<&Pointer>) -> Result<Next, CatalogueError>,
    ) -> Result<Option<Stamp>, CatalogueError> {
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
    ) -> Result<Option<Stamp>, CatalogueError> {
        let stamp = match (next, seen) {
            (Next::Write(pointer), seen) => Some(store.write(key, &pointer, seen).await?),
            (Next::Delete, Some(seen)) => {
                store.delete(key, seen).await?;
                None
            }
            (Next::Delete | Next::Keep, seen) => seen.cloned(),
        };
        // As the store has it now, with the stamp that the next look will compare.
        self.reread(key).await?;
        Ok(stamp)
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
    fn aliases(&self, key: &Key) -> BTreeMap<AdapterName, Version> {
        self.inner.aliases.get(key).map(|aliases| aliases.clone()).unwrap_or_default()
    }

    pub(super) fn aliased(&self, key: &Key) -> HashSet<Version> {
        self.aliases(key).into_values().collect()
    }
}

/// Whether the condition of a change holds.
pub(super) fn check(
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
        (Precondition::Is(wanted) | Precondition::AbsentOr(wanted), Some(current)) if wanted == current => {
            return Ok(());
        }
        (Precondition::AbsentOr(_), None) => return Ok(()),
        (Precondition::Absent | Precondition::AbsentOr(_), Some(_)) => "is not there",
        (Precondition::Present, None) => "is there",
        (Precondition::Is(_), _) => "is at the version of If-Match",
    };
    let found = current.map_or("not there".to_owned(), |current| format!("at {current}"));
    Err(CatalogueError::Precondition { name: name.clone(), found, wanted })
}
