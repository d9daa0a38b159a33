use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use subtle::ConstantTimeEq;

use super::{ApiKey, KeyFileError, KeyHash, Principal, Scope, file};

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No key was sent.
    #[error("this server asks for an API key: send 'authorization: Bearer dept_…'")]
    NoKey,
    /// The header is something else than a key.
    #[error("the authorization header is not one 'Bearer dept_…': send one API key of this server")]
    NotBearer,
    /// Nobody has this key, or nobody has it any more.
    #[error("the API key is not known: it was mistyped, or it has been taken back")]
    UnknownKey,
    /// The key may not do this.
    #[error("the key '{key}' has not the scope '{scope}': ask for a key that has it")]
    Scope {
        /// The key's name.
        key: String,
        /// What it would need.
        scope: Scope,
    },
}

/// The keys of a file, each with who it lets in.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    pub keys: Vec<(KeyHash, Principal)>,
}

impl Keyring {
    /// Looks at every key, each for the same time, so that the time tells nothing of the hashes.
    fn find(&self, hash: &KeyHash) -> Option<&Principal> {
        let mut found = None;
        for (known, principal) in &self.keys {
            if known.ct_eq(hash).into() {
                found = Some(principal);
            }
        }
        found
    }

    /// The tenants, each once for every key.
    pub fn tenants(&self) -> impl Iterator<Item = &super::Tenant> {
        self.keys.iter().map(|(_, principal)| principal.tenant())
    }
}

/// Tells who asks. Shared by all doors.
#[derive(Debug)]
pub struct Gate(Kind);

#[derive(Debug)]
enum Kind {
    /// Everyone is the same one.
    Open(Principal),
    /// Who has a key of the file.
    Keys {
        /// The file.
        path: PathBuf,
        /// What it said when it was last sound.
        keyring: RwLock<Arc<Keyring>>,
    },
}

impl Gate {
    /// A gate without keys; see [`Principal::anonymous`].
    pub fn open(max_priority: i32) -> Self {
        Self(Kind::Open(Principal::anonymous(max_priority)))
    }

    /// A gate with the keys of a file.
    ///
    /// # Errors
    /// When the file can't be read or is not sound.
    pub fn with_keys(path: PathBuf) -> Result<Self, KeyFileError> {
        let keyring = file::read(&path, &Keyring::default())?;
        Ok(Self(Kind::Keys { path, keyring: RwLock::new(Arc::new(keyring)) }))
    }

    /// Whether no keys are asked for.
    pub fn is_open(&self) -> bool {
        matches!(self.0, Kind::Open(_))
    }

    /// Reads the file anew; returns how many keys there are. Tenants keep what they have used of unchanged quotas.
    ///
    /// # Errors
    /// When the file can't be read or is not sound: the keys that were known stay.
    pub fn reload(&self) -> Result<usize, KeyFileError> {
        let Kind::Keys { path, keyring } = &self.0 else { return Ok(0) };
        let fresh = file::read(path, &self.keyring())?;
        let count = fresh.keys.len();
        *keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(count)
    }

    fn keyring(&self) -> Arc<Keyring> {
        match &self.0 {
            Kind::Open(_) => Arc::default(),
            Kind::Keys { keyring, .. } => Arc::clone(&keyring.read().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Who sent these `Authorization` headers (gRPC: metadata), of which there may be one. An open gate does not look
    /// at them, since many clients always send some key.
    ///
    /// # Errors
    /// When nobody did.
    pub fn admit<'a>(&self, mut authorization: impl Iterator<Item = &'a [u8]>) -> Result<Principal, Denied> {
        if let Kind::Open(principal) = &self.0 {
            return Ok(principal.clone());
        }
        let header = authorization.next().ok_or(Denied::NoKey)?;
        if authorization.next().is_some() {
            return Err(Denied::NotBearer);
        }
        let text = std::str::from_utf8(header).map_err(|_| Denied::NotBearer)?;
        let key = bearer(text).ok_or(Denied::NotBearer)?;
        let hash = ApiKey::parse(key).map_err(|_| Denied::UnknownKey)?.hash();
        self.keyring().find(&hash).cloned().ok_or(Denied::UnknownKey)
    }
}

/// The credentials of a header; the scheme's case does not matter.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim_start())
}
