//! The key file: TOML in, a keyring out, or exactly what is wrong with it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::{
    AdapterPattern, AllowList, KeyHash, Principal, Quotas, Scope, Scopes, Tenant, gate::Keyring,
    quota::Limits,
};
use crate::domain::{NameError, TenantId};

/// Largest weight of a tenant.
pub const MAX_WEIGHT: u32 = 1000;

/// Largest file. 10,000 keys take about 1.5 MB.
const MAX_BYTES: u64 = 8 << 20;

/// Why a key file is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It can't be read.
    #[error("can't read --api-keys '{}': {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is not TOML of the documented form.
    #[error("--api-keys '{}': {cause}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and what.
        cause: String,
    },
    /// A value means nothing or contradicts another.
    #[error("--api-keys '{}': {cause}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: ContentError,
    },
}

/// What is wrong with a key file's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// An empty file would lock everyone out, which nobody writes on purpose.
    #[error("it names no tenant: write at least one [tenants.NAME] with a key")]
    NoTenants,
    /// The tenant's name is not one.
    #[error(transparent)]
    Tenant(#[from] NameError),
    /// Nobody could be this tenant.
    #[error("tenant '{0}' has no key: give it one, or take the tenant out")]
    NoKeys(String),
    /// Two keys of one name.
    #[error("tenant '{tenant}' has two keys named '{key}': names tell keys apart in logs")]
    KeyName {
        /// The tenant.
        tenant: String,
        /// The name.
        key: String,
    },
    /// A key's name that can't stand in a log.
    #[error("tenant '{tenant}' has a key named '{key}': use 1 to 64 letters, digits, '.', '_' or '-'")]
    KeyNameForm {
        /// The tenant.
        tenant: String,
        /// The name.
        key: String,
    },
    /// One key for two.
    #[error("keys '{first}' and '{second}' have the same hash: make a key for each with `dept key new`")]
    SameKey {
        /// The one, as tenant/key.
        first: String,
        /// The other.
        second: String,
    },
    /// A key that may do more than its tenant.
    #[error(
        "key '{key}' of tenant '{tenant}' has the scope '{scope}', which its tenant has not: give it to both"
    )]
    KeyScope {
        /// The tenant.
        tenant: String,
        /// The key.
        key: String,
        /// The scope.
        scope: Scope,
    },
    /// A weight out of range.
    #[error("tenant '{tenant}' has weight {weight}: use 1 to {MAX_WEIGHT}")]
    Weight {
        /// The tenant.
        tenant: String,
        /// Its weight.
        weight: u32,
    },
    /// A burst of nothing.
    #[error("tenant '{tenant}' has {burst} without {rate}: give the rate too, or neither")]
    BurstAlone {
        /// The tenant.
        tenant: String,
        /// The key of the burst.
        burst: &'static str,
        /// The key of the rate.
        rate: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    #[serde(default)]
    tenants: BTreeMap<String, TenantForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantForm {
    #[serde(default)]
    keys: Vec<KeyForm>,
    scopes: Option<Vec<Scope>>,
    adapters: Option<Vec<AdapterPattern>>,
    weight: Option<u32>,
    #[serde(default)]
    max_priority: i32,
    requests_per_minute: Option<NonZeroU32>,
    request_burst: Option<NonZeroU32>,
    tokens_per_minute: Option<NonZeroU32>,
    token_burst: Option<NonZeroU32>,
    concurrent_requests: Option<NonZeroU32>,
    max_adapters: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    name: String,
    hash: KeyHash,
    scopes: Option<Vec<Scope>>,
}

/// What a tenant may do that the file says nothing about.
const DEFAULT_SCOPES: [Scope; 2] = [Scope::Generate, Scope::AdaptersRead];

/// Reads a key file. Tenants that `before` has too keep what they have used of unchanged quotas.
pub(super) fn read(path: &Path, before: &Keyring) -> Result<Keyring, KeyFileError> {
    let unreadable = |cause| KeyFileError::Unreadable { path: path.to_owned(), cause };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > MAX_BYTES {
        return Err(unreadable(io::Error::other(format!("it is over {MAX_BYTES} bytes"))));
    }
    warn_if_exposed(path, &metadata);
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let form = parse(&text).map_err(|cause| KeyFileError::Form { path: path.to_owned(), cause })?;
    keyring(form, before).map_err(|cause| KeyFileError::Content { path: path.to_owned(), cause })
}

fn parse(text: &str) -> Result<FileForm, String> {
    let form = toml::Deserializer::parse(text).map_err(|error| located(&error, text))?;
    serde_path_to_error::deserialize(form)
        .map_err(|error| format!("{}, {}", error.path(), located(error.inner(), text)))
}

/// The message with its line's number. The line itself, which toml would show, may hold a key that was pasted for its
/// hash.
fn located(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

#[cfg(unix)]
fn warn_if_exposed(path: &Path, metadata: &fs::Metadata) {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o006 != 0 {
        let mode = format!("{mode:03o}");
        tracing::warn!(path = %path.display(), mode, "every user of this machine can read the key file: chmod 640 it");
    }
}

#[cfg(not(unix))]
fn warn_if_exposed(_: &Path, _: &fs::Metadata) {}

fn keyring(form: FileForm, before: &Keyring) -> Result<Keyring, ContentError> {
    if form.tenants.is_empty() {
        return Err(ContentError::NoTenants);
    }
    let used: HashMap<&TenantId, &Arc<Quotas>> = before.tenants().map(|t| (&t.id, &t.quotas)).collect();
    let mut keyring = Keyring::default();
    let mut owners: HashMap<String, String> = HashMap::new();
    for (name, form) in form.tenants {
        let id: TenantId = name.parse()?;
        let limits = form.limits(&name)?;
        let scopes: Scopes = form.scopes.iter().flatten().copied().collect();
        let scopes = if form.scopes.is_some() { scopes } else { DEFAULT_SCOPES.into_iter().collect() };
        let tenant = Arc::new(Tenant {
            weight: weight(&name, form.weight)?,
            max_priority: form.max_priority,
            max_adapters: form.max_adapters.unwrap_or(usize::MAX),
            adapters: form.adapters.map_or(AllowList::Every, AllowList::Only),
            quotas: used.get(&id).map_or_else(|| Arc::new(Quotas::new(limits)), |used| used.renewed(limits)),
            id,
        });
        check_key_names(&name, &form.keys)?;
        for key in form.keys {
            let full_name = format!("{name}/{}", key.name);
            if let Some(first) = owners.insert(key.hash.to_string(), full_name.clone()) {
                return Err(ContentError::SameKey { first, second: full_name });
            }
            let scopes = key.scopes(&name, scopes)?;
            let principal = Principal::new(Arc::clone(&tenant), full_name.into(), scopes);
            keyring.keys.push((key.hash, principal));
        }
    }
    Ok(keyring)
}

fn weight(tenant: &str, weight: Option<u32>) -> Result<NonZeroU32, ContentError> {
    let weight = weight.unwrap_or(1);
    NonZeroU32::new(weight)
        .filter(|weight| weight.get() <= MAX_WEIGHT)
        .ok_or_else(|| ContentError::Weight { tenant: tenant.to_owned(), weight })
}

fn check_key_names(tenant: &str, keys: &[KeyForm]) -> Result<(), ContentError> {
    if keys.is_empty() {
        return Err(ContentError::NoKeys(tenant.to_owned()));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let mut seen = HashSet::new();
    for KeyForm { name, .. } in keys {
        let (tenant, key) = (tenant.to_owned(), name.clone());
        if !(1..=64).contains(&name.len()) || !name.bytes().all(legal) {
            return Err(ContentError::KeyNameForm { tenant, key });
        }
        if !seen.insert(name) {
            return Err(ContentError::KeyName { tenant, key });
        }
    }
    Ok(())
}

impl KeyForm {
    /// The key's own scopes, which must be among its tenant's; all of those where it has none of its own.
    fn scopes(&self, tenant: &str, of_tenant: Scopes) -> Result<Scopes, ContentError> {
        let Some(own) = &self.scopes else { return Ok(of_tenant) };
        if let Some(&scope) = own.iter().find(|&&scope| !of_tenant.contains(scope)) {
            let (tenant, key) = (tenant.to_owned(), self.name.clone());
            return Err(ContentError::KeyScope { tenant, key, scope });
        }
        Ok(own.iter().copied().collect())
    }
}

impl TenantForm {
    fn limits(&self, tenant: &str) -> Result<Limits, ContentError> {
        let limit =
            |rate: Option<NonZeroU32>, burst: Option<NonZeroU32>, names: (&'static str, &'static str)| {
                match (rate, burst) {
                    // A minute's worth may come at once.
                    (Some(rate), burst) => Ok(Some((rate, burst.unwrap_or(rate)))),
                    (None, None) => Ok(None),
                    (None, Some(_)) => {
                        let tenant = tenant.to_owned();
                        Err(ContentError::BurstAlone { tenant, rate: names.0, burst: names.1 })
                    }
                }
            };
        let requests = ("requests_per_minute", "request_burst");
        let tokens = ("tokens_per_minute", "token_burst");
        Ok(Limits {
            requests: limit(self.requests_per_minute, self.request_burst, requests)?,
            tokens: limit(self.tokens_per_minute, self.token_burst, tokens)?,
            concurrent: self.concurrent_requests,
        })
    }
}
