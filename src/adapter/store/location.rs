use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use object_store::{
    ObjectStore, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem, path::Path,
};

/// Why a place for adapters can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// Another scheme.
    #[error("'{0}' is no place for adapters: give a folder, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX")]
    Scheme(String),
    /// The store refuses what it is told.
    #[error("'{location}' can't be used: {source}")]
    Store {
        /// The place.
        location: String,
        /// What the store's client says.
        source: object_store::Error,
    },
    /// The folder can't be used.
    #[error("'{}' can't be used: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Where adapters are: `--adapters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder: its sub-folders are adapters that come with it, uploads go to `.store` in it.
    Folder(PathBuf),
    /// A bucket and a prefix in it, as a URL.
    Bucket {
        /// `s3`, `gs` or `az`.
        scheme: Scheme,
        /// The whole URL.
        url: String,
        /// What stands behind the bucket.
        prefix: String,
    },
}

/// The kinds of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Amazon S3 and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Folder(text.into())) };
        let wrong = || LocationError::Scheme(text.to_owned());
        let scheme = match scheme {
            "s3" => Scheme::S3,
            "gs" => Scheme::Gcs,
            "az" => Scheme::Azure,
            _ => return Err(wrong()),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong());
        }
        Ok(Self::Bucket { scheme, url: text.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Bucket { url, .. } => f.write_str(url),
        }
    }
}

/// A store's client, the prefix in it, and the lock file where it needs one.
type Opened = (Arc<dyn ObjectStore>, Path, Option<PathBuf>);

impl Location {
    /// The folder whose sub-folders come with it.
    pub fn folder(&self) -> Option<&PathBuf> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Bucket { .. } => None,
        }
    }

    /// Credentials, regions and endpoints of buckets are found as the cloud's own tools find them.
    pub(super) fn open(&self) -> Result<Opened, LocationError> {
        match self {
            Self::Folder(path) => {
                let refused = |source| LocationError::Folder { path: path.clone(), source };
                let root = std::fs::canonicalize(path).map_err(refused)?;
                // A pointer that a crash could undo would not be an answer to an upload.
                let files = LocalFileSystem::new_with_prefix(&root).map_err(|source| self.refused(source))?;
                let lock = root.join(".store").join("lock");
                Ok((Arc::new(files.with_fsync(true)), Path::default(), Some(lock)))
            }
            Self::Bucket { scheme, url, prefix } => {
                // TLS needs to be told once whose arithmetic to use; who came first is as good.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let built: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
                    Scheme::S3 => AmazonS3Builder::from_env().with_url(url).build().map(|s| Arc::new(s) as _),
                    Scheme::Gcs => {
                        GoogleCloudStorageBuilder::from_env().with_url(url).build().map(|s| Arc::new(s) as _)
                    }
                    Scheme::Azure => {
                        MicrosoftAzureBuilder::from_env().with_url(url).build().map(|s| Arc::new(s) as _)
                    }
                };
                let store = built.map_err(|source| self.refused(source))?;
                Ok((store, Path::from(prefix.as_str()), None))
            }
        }
    }

    fn refused(&self, source: object_store::Error) -> LocationError {
        LocationError::Store { location: self.to_string(), source }
    }
}
