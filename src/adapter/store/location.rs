use std::{path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path,
};

use crate::config::{Location, Scheme, choose_crypto};

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store refuses what it is told.
    #[error("adapters at '{location}': {source}")]
    Store {
        /// The place.
        location: String,
        /// What the store's client says.
        source: object_store::Error,
    },
    /// The folder can't be used.
    #[error("adapters at '{}': {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A store's client, the prefix in it, and the lock file where it needs one.
pub(super) type Opened = (Arc<dyn ObjectStore>, Path, Option<PathBuf>);

/// How a bucket that does not answer is tried again: requests wait for it, so for seconds and not for minutes.
fn patience() -> RetryConfig {
    RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() }
}

/// The client of a place. Credentials, regions and endpoints of buckets are found as the cloud's own tools find them.
pub(super) fn open(location: &Location) -> Result<Opened, OpenError> {
    let refused = |source| OpenError::Store { location: location.to_string(), source };
    match location {
        Location::Folder(path) => {
            let root = std::fs::canonicalize(path)
                .map_err(|source| OpenError::Folder { path: path.clone(), source })?;
            // A pointer that a crash could undo would not be an answer to an upload.
            let files = LocalFileSystem::new_with_prefix(&root).map_err(refused)?.with_fsync(true);
            let lock = root.join(".store").join("lock");
            Ok((Arc::new(files), Path::default(), Some(lock)))
        }
        Location::Bucket { scheme, url, prefix } => {
            choose_crypto();
            let built: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
                Scheme::S3 => {
                    let store = AmazonS3Builder::from_env().with_url(url).with_retry(patience());
                    store.build().map(|store| Arc::new(store) as _)
                }
                Scheme::Gcs => {
                    let store = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(patience());
                    store.build().map(|store| Arc::new(store) as _)
                }
                Scheme::Azure => {
                    let store = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(patience());
                    store.build().map(|store| Arc::new(store) as _)
                }
            };
            Ok((built.map_err(refused)?, Path::from(prefix.as_str()), None))
        }
    }
}
