//! Why adapters are not served.

use std::path::PathBuf;

use super::KEPT_GENERATIONS;
use crate::{
    adapter::{folder::FolderError, manifest::Task},
    domain::{AdapterName, NameError, VersionPrefix},
};

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
