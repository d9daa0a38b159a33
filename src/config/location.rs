use std::{fmt, path::PathBuf, str::FromStr};

/// A text that names no place for adapters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no place for adapters: give a folder, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX"
)]
pub struct LocationError(String);

/// Where adapters are: `--adapters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder: its sub-folders are adapters that come with it, uploads go to `.store` in it.
    Folder(PathBuf),
    /// A bucket and a prefix in it.
    Bucket {
        /// Whose bucket.
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

impl Location {
    /// The folder whose sub-folders come with it.
    pub fn folder(&self) -> Option<&PathBuf> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Bucket { .. } => None,
        }
    }
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Folder(text.into())) };
        let wrong = || LocationError(text.to_owned());
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
