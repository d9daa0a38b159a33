//! What a client does with adapters: use, look, upload, change. Who may do what is decided here.

use std::time::Instant;

use bytes::Bytes;

use super::{ApiError, ErrorCode, Service, Trace};
use crate::{
    adapter::{
        AdapterLease, CatalogueError,
        catalogue::{Change, Found, Precondition, Published},
        folder::AdapterBytes,
        residency::Residence,
    },
    domain::{AdapterName, AdapterRef, Namespace, VersionPrefix},
    tenancy::{Principal, Scope},
};

/// Where a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Site {
    /// In the tenant's own namespace.
    #[default]
    Home,
    /// In what all tenants see.
    Shared,
}

impl Service {
    /// A lease on the adapter that a request of `principal` names, loaded if need be, which its trace is told.
    ///
    /// # Errors
    /// When there is none that they may use, or it can't be loaded, or the queue is full and it is not in memory.
    pub async fn adapter(
        &self,
        principal: &Principal,
        wanted: Option<&AdapterRef>,
        trace: Option<&Trace>,
    ) -> Result<Option<AdapterLease>, ApiError> {
        let Some(wanted) = wanted else { return Ok(None) };
        let leased = async {
            self.readiness.check()?;
            visible(principal, &wanted.name)?;
            let found = self.catalogue.find(&principal.tenant().id, wanted).await?;
            // Clients that don't back off would else make a full server load and evict for nothing.
            if found.resident == Residence::Store {
                self.engine().room()?;
            }
            let began = Instant::now();
            let loaded = self.catalogue.lease(&found).await;
            if let Some(trace) = trace.filter(|_| found.resident == Residence::Store) {
                trace.loaded(&found, began, loaded.is_ok());
            }
            Ok(loaded.map_err(CatalogueError::from)?)
        };
        let counted = |error: &ApiError| self.metrics.rejected.count(error.code.as_str());
        leased.await.map(Some).inspect_err(counted)
    }

    /// The adapters and aliases that `principal` may use, in the order of their names: at most `limit`, behind the name `after`.
    /// Also whether there are more.
    pub fn list_adapters(
        &self,
        principal: &Principal,
        limit: usize,
        after: Option<&AdapterName>,
    ) -> (Vec<(AdapterName, Found)>, bool) {
        self.search_adapters(principal, "", limit, after)
    }

    /// The same, of those only whose names contain `part`.
    pub fn search_adapters(
        &self,
        principal: &Principal,
        part: &str,
        limit: usize,
        after: Option<&AdapterName>,
    ) -> (Vec<(AdapterName, Found)>, bool) {
        let keep = |name: &AdapterName| name.as_str().contains(part) && principal.may_use(name);
        self.catalogue.list(&principal.tenant().id, (limit, after), keep)
    }

    /// What `wanted` means to `principal`.
    ///
    /// # Errors
    /// `adapter_not_found`.
    pub async fn find_adapter(&self, principal: &Principal, wanted: &AdapterRef) -> Result<Found, ApiError> {
        visible(principal, &wanted.name)?;
        Ok(self.catalogue.find(&principal.tenant().id, wanted).await?)
    }

    /// The versions of an adapter, the current one first.
    ///
    /// # Errors
    /// `adapter_not_found`.
    pub async fn adapter_versions(
        &self,
        principal: &Principal,
        name: &AdapterName,
    ) -> Result<Vec<Found>, ApiError> {
        visible(principal, name)?;
        Ok(self.catalogue.versions(&principal.tenant().id, name).await?)
    }

    /// An adapter's files as an archive.
    ///
    /// # Errors
    /// `adapter_not_found`, or when they can't be read.
    pub async fn adapter_content(
        &self,
        principal: &Principal,
        wanted: &AdapterRef,
    ) -> Result<(Found, Bytes), ApiError> {
        visible(principal, &wanted.name)?;
        Ok(self.catalogue.content(&principal.tenant().id, wanted).await?)
    }

    /// Makes `files` the current version of an adapter.
    ///
    /// # Errors
    /// When they are not sound, do not fit the model, or the change may not be made. Nothing is changed then.
    pub async fn put_adapter(
        &self,
        principal: &Principal,
        (place, name): (Site, &AdapterName),
        files: AdapterBytes,
        precondition: Precondition,
    ) -> Result<Published, ApiError> {
        let namespace = self.home_for(principal, place, name)?;
        Ok(self.catalogue.put(&namespace, name, files, precondition).await?)
    }

    /// Makes `files` an adapter, in the manner of servers that load a name once: a name that is taken is refused unless
    /// `replace` says otherwise. The very same files again are no change.
    ///
    /// # Errors
    /// As [`Service::put_adapter`].
    pub async fn load_adapter(
        &self,
        principal: &Principal,
        (place, name): (Site, &AdapterName),
        files: AdapterBytes,
        replace: bool,
    ) -> Result<Published, ApiError> {
        let namespace = self.home_for(principal, place, name)?;
        let checked = self.catalogue.check(name, files).await?;
        let precondition =
            if replace { Precondition::None } else { Precondition::AbsentOr(checked.version()) };
        self.catalogue.publish(&namespace, checked, precondition).await.map_err(|error| match error {
            CatalogueError::Precondition { .. } if !replace => {
                let message = format!(
                    "The lora adapter '{name}' has already been loaded, with other files: unload it first, or say \
                     \"load_inplace\": true"
                );
                ApiError::invalid("lora_name", message)
            }
            error => error.into(),
        })
    }

    /// Deletes an adapter, or one version of it.
    ///
    /// # Errors
    /// When there is none such, or it may not be deleted.
    pub async fn delete_adapter(
        &self,
        principal: &Principal,
        (place, name): (Site, &AdapterName),
        version: Option<&VersionPrefix>,
        precondition: Precondition,
    ) -> Result<(), ApiError> {
        let namespace = changeable(principal, place, name)?;
        match version {
            None => Ok(self.catalogue.delete(&namespace, name, false, precondition).await?),
            Some(version) => {
                Ok(self.catalogue.delete_version(&namespace, name, version, precondition).await?)
            }
        }
    }

    /// Keeps an adapter in memory, or not.
    ///
    /// # Errors
    /// When there is none such or it can't be loaded.
    pub async fn pin_adapter(
        &self,
        principal: &Principal,
        (place, name): (Site, &AdapterName),
        pinned: bool,
        precondition: Precondition,
    ) -> Result<Found, ApiError> {
        let namespace = changeable(principal, place, name)?;
        Ok(self.catalogue.set_pinned(&namespace, name, pinned, precondition).await?)
    }

    /// Lets an alias stand for a version of an adapter.
    ///
    /// # Errors
    /// When there is no such adapter in the same namespace, or the name is taken.
    pub async fn set_alias(
        &self,
        principal: &Principal,
        (place, alias): (Site, &AdapterName),
        target: &AdapterRef,
        precondition: Precondition,
    ) -> Result<(Change, Found), ApiError> {
        let namespace = self.home_for(principal, place, alias)?;
        if place == Site::Home {
            visible(principal, &target.name)?;
        }
        Ok(self.catalogue.set_alias(&namespace, alias, target, precondition).await?)
    }

    /// Deletes an alias; what it stood for stays.
    ///
    /// # Errors
    /// When there is none such.
    pub async fn delete_alias(
        &self,
        principal: &Principal,
        (place, alias): (Site, &AdapterName),
        precondition: Precondition,
    ) -> Result<(), ApiError> {
        let namespace = changeable(principal, place, alias)?;
        Ok(self.catalogue.delete(&namespace, alias, true, precondition).await?)
    }
}

impl Service {
    /// The namespace in which `principal` may give something the name `name`, if it may have one more.
    fn home_for(
        &self,
        principal: &Principal,
        place: Site,
        name: &AdapterName,
    ) -> Result<Namespace, ApiError> {
        let namespace = writable(principal, place, name)?;
        if place == Site::Home && !self.catalogue.has(&namespace, name) {
            principal.check_count(self.catalogue.count(&namespace))?;
        }
        Ok(namespace)
    }
}

/// What a client may not use is as if it were not there.
fn visible(principal: &Principal, name: &AdapterName) -> Result<(), ApiError> {
    if principal.may_use(name) { Ok(()) } else { Err(ApiError::no_adapter(name)) }
}

/// The namespace in which `principal` may give something the name `name`; the scope for its own was asked for at the door.
fn writable(principal: &Principal, place: Site, name: &AdapterName) -> Result<Namespace, ApiError> {
    match place {
        // It could never use it; and the answer must not depend on what others have.
        Site::Home if !principal.may_use(name) => {
            let message = format!(
                "the name '{name}' is not among those that tenant '{}' may use: choose one of those, or have it added in the \
                 key file",
                principal.tenant().id
            );
            Err(ApiError::new(ErrorCode::Forbidden, message).about("name"))
        }
        Site::Home => Ok(Namespace::home(&principal.tenant().id)),
        Site::Shared => {
            principal.require(Scope::Admin)?;
            Ok(Namespace::shared())
        }
    }
}

/// The namespace in which `principal` may change what has the name `name`, or take it away: why one can't be changed would
/// tell that it is there.
fn changeable(principal: &Principal, place: Site, name: &AdapterName) -> Result<Namespace, ApiError> {
    if place == Site::Home {
        visible(principal, name)?;
    }
    writable(principal, place, name)
}
