use std::{fs, path::PathBuf};

use tempfile::TempDir;

use crate::{
    domain::AdapterName,
    tenancy::{ApiKey, Denied, Gate, KeyFileError, Principal},
};

/// A key file that can be written anew.
pub struct KeyFile {
    _folder: TempDir,
    pub path: PathBuf,
}

impl KeyFile {
    pub fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Self { path: folder.path().join("keys.toml"), _folder: folder };
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
    }

    pub fn open(&self) -> Result<Gate, KeyFileError> {
        Gate::with_keys(self.path.clone())
    }
}

/// A tenant's table with one key, and `more` lines.
pub fn tenant(name: &str, key: &ApiKey, more: &str) -> String {
    format!("[tenants.{name}]\nkeys = [{{ name = \"one\", hash = \"{}\" }}]\n{more}\n", key.hash())
}

pub fn key() -> ApiKey {
    ApiKey::random().unwrap()
}

/// What the gate says to a client that sends `key`.
pub fn admit(gate: &Gate, key: &ApiKey) -> Result<Principal, Denied> {
    let header = format!("Bearer {}", key.reveal());
    gate.admit([header.as_bytes()].into_iter())
}

pub fn name(text: &str) -> AdapterName {
    text.parse().unwrap()
}
