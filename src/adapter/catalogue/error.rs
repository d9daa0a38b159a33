use crate::{
    adapter::{
        backbone::MisfitError,
        folder::FolderError,
        residency::LoadError,
        store::{KEPT_VERSIONS, OpenError, StoreError},
    },
    domain::{AdapterName, Version, VersionPrefix},
};

/// Why an adapter is not served, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Nothing of that name, for this tenant.
    #[error("there is no adapter '{name}': list the adapters to see their names")]
    Unknown {
        /// The wanted name.
        name: AdapterName,
    },
    /// The adapter has no such version any more.
    #[error(
        "adapter '{name}' has no version {version}: its current one is {current}, and the last {KEPT_VERSIONS} are kept"
    )]
    UnknownVersion {
        /// The adapter.
        name: AdapterName,
        /// The wanted digits.
        version: VersionPrefix,
        /// What is current.
        current: Version,
    },
    /// The digits fit more than one version.
    #[error("version {version} fits more than one of adapter '{name}': write more of its digits")]
    AmbiguousVersion {
        /// The adapter.
        name: AdapterName,
        /// The wanted digits.
        version: VersionPrefix,
    },
    /// An alias whose adapter or version is gone.
    #[error("alias '{alias}' stands for a version of '{target}' that is gone: point it to another one")]
    BrokenAlias {
        /// The alias.
        alias: AdapterName,
        /// What it stands for.
        target: AdapterName,
    },
    /// An alias can't stand for an alias.
    #[error("'{0}' is an alias itself: point to the adapter that it stands for")]
    AliasOfAlias(AdapterName),
    /// The name is taken by the other kind.
    #[error("'{0}' is {1}: choose another name, or delete it first")]
    OtherKind(AdapterName, &'static str),
    /// Only a folder under the root has this name.
    #[error(
        "'{0}' comes with the server, as a folder under its root, and can't be changed here: upload another one under its name"
    )]
    ReadOnly(AdapterName),
    /// The name is one of what all tenants share.
    #[error(
        "'{0}' is shared by all tenants: say namespace=shared to change it there, which needs the admin scope"
    )]
    SharedOnly(AdapterName),
    /// A version that an alias stands for.
    #[error(
        "version {version} of '{name}' is what alias '{alias}' stands for: point the alias elsewhere first"
    )]
    Aliased {
        /// The adapter.
        name: AdapterName,
        /// The version.
        version: Version,
        /// The alias.
        alias: AdapterName,
    },
    /// The condition of a change does not hold.
    #[error("'{name}' is {found}, and the change was to be made only if it {wanted}: look at it again")]
    Precondition {
        /// The adapter.
        name: AdapterName,
        /// What it is.
        found: String,
        /// The condition.
        wanted: &'static str,
    },
    /// Does not fit the model.
    #[error(transparent)]
    Misfit(#[from] MisfitError),
    /// The files are not sound.
    #[error(transparent)]
    Unsound(#[from] FolderError),
    /// It can't come into memory.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A folder under the root can't be read.
    #[error("the files of '{name}' can't be read: {reason}")]
    Unreadable {
        /// The adapter.
        name: AdapterName,
        /// Why.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The place for adapters can't be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server has no place for uploads.
    #[error("this server has no place for adapters: start it with --adapters")]
    NoStore,
    /// The root can't be listed.
    #[error("the adapters' root can't be listed: {0}")]
    Root(#[source] std::io::Error),
    /// A bug.
    #[error("the server failed on this adapter; its log has more")]
    Panicked,
}

impl CatalogueError {
    /// Whether another server might know what is unknown here.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::UnknownVersion { .. } | Self::BrokenAlias { .. })
    }
}
