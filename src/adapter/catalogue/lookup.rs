//! What a name means to whom.

use std::{
    ops::Bound,
    sync::{Arc, PoisonError},
};

use super::{Catalogue, CatalogueError, Found};
use crate::{
    adapter::{
        residency::Residence,
        store::{Entry, Pointer, StoredVersion},
    },
    domain::{AdapterName, AdapterRef, Namespace, TenantId},
};

impl Catalogue {
    /// What `wanted` means to `tenant`: in their home, then in what all share.
    ///
    /// # Errors
    /// When it means nothing to them.
    pub async fn find(&self, tenant: &TenantId, wanted: &AdapterRef) -> Result<Found, CatalogueError> {
        match self.known(tenant, wanted) {
            // Another server may have it already.
            Err(error) if error.is_unknown() && self.look_again(tenant, wanted).await? => {
                let found = self.known(tenant, wanted);
                if found.as_ref().is_err_and(CatalogueError::is_unknown) {
                    // The name is there and the version is not: whoever goes on asking must not keep the store busy.
                    for namespace in [Namespace::home(tenant), Namespace::shared()] {
                        self.remember_miss((namespace, wanted.name.clone()));
                    }
                }
                found
            }
            found => found,
        }
    }

    /// As [`Catalogue::find`], by what is known here.
    pub(super) fn known(&self, tenant: &TenantId, wanted: &AdapterRef) -> Result<Found, CatalogueError> {
        for namespace in [Namespace::home(tenant), Namespace::shared()] {
            if let Some(found) = self.known_in(&namespace, wanted)? {
                return Ok(found);
            }
        }
        Err(CatalogueError::Unknown { name: wanted.name.clone() })
    }

    pub(super) fn known_in(
        &self,
        namespace: &Namespace,
        wanted: &AdapterRef,
    ) -> Result<Option<Found>, CatalogueError> {
        let key = (namespace.clone(), wanted.name.clone());
        let Some(name) = self.inner.names.get(&key).map(|name| Arc::clone(&name)) else { return Ok(None) };
        let (key, name, version) = match &name.pointer.entry {
            Entry::Deleted => return Ok(None),
            Entry::Adapter { .. } => {
                let version = choose(&name.pointer, wanted)?.clone();
                (key, name, version)
            }
            Entry::Alias { name: target, version } => {
                let key = (namespace.clone(), target.clone());
                let broken =
                    || CatalogueError::BrokenAlias { alias: wanted.name.clone(), target: target.clone() };
                let name = self.inner.names.get(&key).map(|name| Arc::clone(&name)).ok_or_else(broken)?;
                let mut versions = name.pointer.versions().iter();
                let version = versions.find(|known| known.version == *version).ok_or_else(broken)?.clone();
                (key, name, version)
            }
        };
        let pinned = matches!(name.pointer.entry, Entry::Adapter { pinned: true, .. });
        let (namespace, own) = key;
        let mut found = Found {
            namespace,
            name: own,
            version,
            pinned,
            resident: Residence::Store,
            source: name.source.clone(),
        };
        found.resident = self.inner.residency.place(&found.key());
        Ok(Some(found))
    }

    /// The versions of an adapter, the current one first.
    ///
    /// # Errors
    /// When `tenant` sees no such adapter.
    pub async fn versions(
        &self,
        tenant: &TenantId,
        name: &AdapterName,
    ) -> Result<Vec<Found>, CatalogueError> {
        let wanted = AdapterRef { name: name.clone(), version: None };
        let current = self.find(tenant, &wanted).await?;
        let key = (current.namespace.clone(), current.name.clone());
        let Some(name) = self.inner.names.get(&key).map(|name| Arc::clone(&name)) else {
            return Ok(vec![current]);
        };
        let found = |version: &StoredVersion| {
            let mut found = Found { version: version.clone(), ..current.clone() };
            found.resident = self.inner.residency.place(&found.key());
            found
        };
        Ok(name.pointer.versions().iter().rev().map(found).collect())
    }

    /// The adapters and aliases that `tenant` sees, in the order of their names: at most `limit`, behind the name `after`,
    /// those that `keep` wants. Also whether there are more. Aliases show what they stand for under their own name.
    pub fn list(
        &self,
        tenant: &TenantId,
        (limit, after): (usize, Option<&AdapterName>),
        keep: impl Fn(&AdapterName) -> bool,
    ) -> (Vec<(AdapterName, Found)>, bool) {
        let (home, shared) = (Namespace::home(tenant), Namespace::shared());
        let sorted = self.inner.sorted.read().unwrap_or_else(PoisonError::into_inner);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = |namespace: &Namespace| {
            let own = sorted.get(namespace).into_iter();
            own.flat_map(move |names| names.range::<AdapterName, _>((start, Bound::Unbounded)))
        };
        // Two sorted runs into one; of equal names the tenant's own goes before.
        let (mut home, mut shared) = (names(&home).peekable(), names(&shared).peekable());
        let mut list = Vec::new();
        while list.len() <= limit {
            let name = match (home.peek(), shared.peek()) {
                (None, None) => break,
                (Some(own), other) if other.is_none_or(|other| own <= other) => {
                    if other == Some(own) {
                        shared.next();
                    }
                    home.next()
                }
                _ => shared.next(),
            };
            let Some(name) = name else { break };
            if !keep(name) {
                continue;
            }
            if let Ok(found) = self.known(tenant, &AdapterRef { name: name.clone(), version: None }) {
                list.push((name.clone(), found));
            }
        }
        let more = list.len() > limit;
        list.truncate(limit);
        (list, more)
    }
}

/// The version that a reference asks for.
pub(super) fn choose<'a>(
    pointer: &'a Pointer,
    wanted: &AdapterRef,
) -> Result<&'a StoredVersion, CatalogueError> {
    let versions = pointer.versions();
    let current = versions.last().expect("an adapter has a version");
    let Some(prefix) = &wanted.version else { return Ok(current) };
    let mut fitting = versions.iter().filter(|known| prefix.matches(&known.version));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => {
            Err(CatalogueError::AmbiguousVersion { name: wanted.name.clone(), version: prefix.clone() })
        }
        (None, _) => Err(CatalogueError::UnknownVersion {
            name: wanted.name.clone(),
            version: prefix.clone(),
            current: current.version,
        }),
    }
}
