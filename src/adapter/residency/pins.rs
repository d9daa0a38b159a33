//! Which adapters stay in memory, and how much that is.

use std::collections::HashMap;

use super::{LoadError, ResidentKey, UNIT};

/// Of the memory, at most one part in so many is pinned: what one tenant pins must leave the others room to come and go.
const SHARE: u64 = 2;

/// What is pinned.
pub(super) struct Pins {
    bytes: HashMap<ResidentKey, u64>,
    sum: u64,
    most: u64,
}

impl Pins {
    /// None yet, in a memory of `budget` bytes.
    pub fn new(budget: u64) -> Self {
        Self { bytes: HashMap::new(), sum: 0, most: budget / SHARE }
    }

    /// Whether an adapter is pinned.
    pub fn contains(&self, key: &ResidentKey) -> bool {
        self.bytes.contains_key(key)
    }

    /// What is pinned once an adapter of `bytes` is pinned too.
    ///
    /// # Errors
    /// When that is too much.
    pub fn check(&self, key: &ResidentKey, bytes: usize) -> Result<u64, LoadError> {
        let before = self.bytes.get(key).copied().unwrap_or_default();
        let (bytes, most) = (self.sum - before + counted(bytes), self.most);
        if bytes <= most { Ok(bytes) } else { Err(LoadError::PinsFull { name: key.1.clone(), bytes, most }) }
    }

    /// Pins an adapter.
    ///
    /// # Errors
    /// When too much is pinned already.
    pub fn pin(&mut self, key: &ResidentKey, bytes: usize) -> Result<(), LoadError> {
        self.sum = self.check(key, bytes)?;
        self.bytes.insert(key.clone(), counted(bytes));
        Ok(())
    }

    /// Takes a pin off; returns whether there was one.
    pub fn unpin(&mut self, key: &ResidentKey) -> bool {
        let bytes = self.bytes.remove(key);
        self.sum -= bytes.unwrap_or_default();
        bytes.is_some()
    }
}

/// What `bytes` take of the memory.
fn counted(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(UNIT) * UNIT
}
