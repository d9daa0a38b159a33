use std::{fmt, str::FromStr, sync::Arc};

/// Longest adapter name in bytes.
pub const MAX_NAME: usize = 64;

/// Shortest version prefix in hexadecimal digits.
pub const MIN_VERSION_PREFIX: usize = 12;

/// The namespace whose adapters every tenant sees.
const SHARED: &str = "shared";

/// Why a name, a version or a reference is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has the wrong characters or length.
    #[error(
        "'{0}' is not an adapter name: use 1 to {MAX_NAME} of a-z, 0-9, '.', '_', '-', starting with a letter or digit"
    )]
    Name(String),
    /// The part behind `@` is not a version.
    #[error(
        "'{0}' is not an adapter version: write {MIN_VERSION_PREFIX} to 64 hexadecimal digits, with or without 'sha256:'"
    )]
    Version(String),
    /// The tenant's name has the wrong characters or length, or is reserved.
    #[error(
        "'{0}' is not a tenant's name: use 1 to {MAX_NAME} of a-z, 0-9, '.', '_', '-', starting with a letter or digit; \
         'shared' is what all tenants see"
    )]
    Tenant(String),
}

/// The name of an adapter: `[a-z0-9][a-z0-9._-]{0,63}`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterName(Arc<str>);

impl AdapterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AdapterName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        is_name(text).then(|| Self(text.into())).ok_or_else(|| NameError::Name(text.into()))
    }
}

/// `[a-z0-9][a-z0-9._-]{0,63}`
fn is_name(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=MAX_NAME).contains(&bytes.len())
        && is_word(bytes[0])
        && bytes.iter().all(|&b| is_word(b) || matches!(b, b'.' | b'_' | b'-'))
}

impl fmt::Display for AdapterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The content address of an adapter generation; prints as `sha256:…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version([u8; 32]);

impl Version {
    /// From the digest of an adapter's canonical content.
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first digits of a [`Version`], as people type them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionPrefix(Box<str>);

impl VersionPrefix {
    /// Whether `version` starts with these digits.
    pub fn matches(&self, version: &Version) -> bool {
        version.hex().starts_with(&*self.0)
    }
}

impl FromStr for VersionPrefix {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let legal = (MIN_VERSION_PREFIX..=64).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        legal.then(|| Self(digits.into())).ok_or_else(|| NameError::Version(text.into()))
    }
}

impl fmt::Display for VersionPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request writes in `"adapter"`: `name` or `name@version`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AdapterRef {
    /// The adapter's name.
    pub name: AdapterName,
    /// The wanted version; the current one when absent.
    pub version: Option<VersionPrefix>,
}

impl FromStr for AdapterRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version.parse()?)),
            None => (text, None),
        };
        Ok(Self { name: name.parse()?, version })
    }
}

impl fmt::Display for AdapterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// The owner of requests and adapters: `[a-z0-9][a-z0-9._-]{0,63}`, not `shared`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The only tenant of a server without API keys.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }

    /// The tenant as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let legal = is_name(text) && text != SHARED;
        legal.then(|| Self(text.into())).ok_or_else(|| NameError::Tenant(text.into()))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
