//! A lock for each of many keys, none of which is there while nobody wants it.

use std::{hash::Hash, sync::Arc};

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Locks by key.
pub(super) struct Locks<K: Eq + Hash> {
    held: DashMap<K, Arc<Mutex<()>>>,
}

/// Holds a key's lock until it is dropped.
pub(super) struct Locked<'a, K: Eq + Hash + Clone> {
    locks: &'a Locks<K>,
    key: K,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash> Default for Locks<K> {
    fn default() -> Self {
        Self { held: DashMap::new() }
    }
}

impl<K: Eq + Hash + Clone> Locks<K> {
    /// Waits for a key's lock; who came first has it first.
    pub async fn lock(&self, key: &K) -> Locked<'_, K> {
        let lock = Arc::clone(&self.held.entry(key.clone()).or_default());
        // Before the wait: who gives up while waiting must leave nothing behind either.
        let mut locked = Locked { locks: self, key: key.clone(), guard: None };
        locked.guard = Some(lock.lock_owned().await);
        locked
    }
}

impl<K: Eq + Hash + Clone> Drop for Locked<'_, K> {
    fn drop(&mut self) {
        self.guard = None;
        // Under the map's own lock, so that nobody takes a copy meanwhile.
        self.locks.held.remove_if(&self.key, |_, lock| Arc::strong_count(lock) == 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_holds_a_key_and_no_key_is_left_behind() {
        let locks = Locks::default();
        let one = locks.lock(&"a").await;
        let mut two = Box::pin(locks.lock(&"a"));
        assert!((&mut two).now_or_never().is_none(), "it is held");
        assert!(locks.lock(&"b").now_or_never().is_some(), "another key is not");
        let gives_up = locks.lock(&"a").now_or_never();
        assert!(gives_up.is_none());
        drop(one);
        drop(two.await);
        assert!(locks.held.is_empty());
    }
}
