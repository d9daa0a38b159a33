//! Keeping up with the store: what other servers change.

use std::{
    collections::{HashMap, HashSet},
    sync::PoisonError,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};

use super::{Catalogue, CatalogueError, Found, MAX_MISSES, Source};
use crate::{
    adapter::{
        residency::{LoadError, Residence, ResidentKey},
        store::{Entry, Key},
    },
    domain::{AdapterRef, Namespace, TenantId},
    telemetry::PinFault,
};

/// Pointers that are read at once.
const READS: usize = 64;

/// How often blobs without a name are looked for, and how long one may be without.
const COLLECTION: Duration = Duration::from_secs(3600);

/// Why a pinned adapter could not be held in memory when last tried.
#[derive(Debug)]
pub(super) struct MissingPin {
    fault: PinFault,
    cause: String,
}

impl MissingPin {
    fn of(error: &LoadError) -> Self {
        let fault = match error {
            LoadError::Failed { .. } => PinFault::Error,
            LoadError::PinsFull { .. } | LoadError::TooLarge { .. } | LoadError::Crowded(_) => {
                PinFault::Capacity
            }
        };
        Self { fault, cause: error.to_string() }
    }

    /// Whether `now` is to be told behind this. What is short of room says how much, which changes all the time.
    fn news(&self, now: &MissingPin) -> bool {
        self.fault != now.fault || now.fault == PinFault::Error && self.cause != now.cause
    }
}

impl Catalogue {
    /// Follows the store and the folders under the root for as long as it is polled.
    pub async fn watch(self) {
        let mut collected = Instant::now();
        loop {
            self.look().await;
            if collected.elapsed() > COLLECTION
                && let Some(store) = &self.inner.store
            {
                collected = Instant::now();
                match store.collect(COLLECTION).await {
                    Ok(0) => {}
                    Ok(gone) => {
                        tracing::info!(blobs = gone, "the store is rid of files that no adapter uses")
                    }
                    Err(error) => tracing::warn!(%error, "the store can't be cleaned"),
                }
            }
        }
    }

    /// Follows the store and the folders until every pinned adapter is held in memory.
    pub async fn hold_pinned(&self) {
        while self.lacks_pinned() {
            self.look().await;
        }
    }

    /// Whether a pinned adapter was not held in memory at the last look.
    pub fn lacks_pinned(&self) -> bool {
        !self.inner.missing_pins.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Waits for the time of the next look and takes up what it finds.
    async fn look(&self) {
        tokio::time::sleep(self.inner.config.interval).await;
        if let Err(error) = self.refresh().await {
            // The store has told the log once.
            tracing::debug!(%error, "the adapter store can't be followed");
        }
        if let Some(store) = &self.inner.store {
            store.probe().await;
        }
        match self.rescan_seeds().await {
            Ok(failures) => failures.iter().for_each(|failure| failure.warn()),
            Err(error) => tracing::warn!(%error, "the adapters' root can't be followed"),
        }
        self.load_pinned().await;
    }

    /// Takes up what has changed in the store since the last look.
    ///
    /// # Errors
    /// When the store does not answer; a damaged pointer is logged and its name keeps its last state.
    pub async fn refresh(&self) -> Result<(), CatalogueError> {
        let Some(store) = &self.inner.store else { return Ok(()) };
        let listed = store.list().await?;
        let there: HashSet<Key> = listed.iter().map(|(key, _)| key.clone()).collect();
        let changed = listed.into_iter().filter(|(key, stamp)| {
            let known = self.inner.names.get(key);
            !known.is_some_and(|name| matches!(&name.source, Source::Store(seen) if seen.same(stamp)))
        });
        let mut changed: Vec<Key> = changed.map(|(key, _)| key).collect();
        // One that came after the list was made is not gone: its pointer says.
        let of_store = |name: &Source| matches!(name, Source::Store(_));
        let gone =
            self.inner.names.iter().filter(|name| of_store(&name.source) && !there.contains(name.key()));
        changed.extend(gone.map(|name| name.key().clone()));
        stream::iter(changed)
            .for_each_concurrent(READS, async |key| {
                if let Err(error) = self.reread(&key).await {
                    tracing::warn!(adapter = %key.1, namespace = %key.0, %error, "an adapter can't be followed");
                }
            })
            .await;
        Ok(())
    }

    /// Takes up the state of one name. Returns whether there is one.
    pub(super) async fn reread(&self, key: &Key) -> Result<bool, CatalogueError> {
        let Some(store) = &self.inner.store else { return Ok(false) };
        let _turn = self.inner.looks.lock(key).await;
        match store.read(key).await? {
            Some((pointer, stamp)) if pointer.entry != Entry::Deleted => {
                self.learn(key.clone(), pointer, Source::Store(stamp));
                Ok(true)
            }
            _ => {
                let known =
                    self.inner.names.get(key).is_some_and(|name| matches!(name.source, Source::Store(_)));
                if known {
                    self.drop_name(key);
                }
                Ok(false)
            }
        }
    }

    /// Looks in the store for a name that is unknown here, unless that was done a moment ago. Returns whether something was
    /// found.
    pub(super) async fn look_again(
        &self,
        tenant: &TenantId,
        wanted: &AdapterRef,
    ) -> Result<bool, CatalogueError> {
        let Some(store) = &self.inner.store else { return Ok(false) };
        store.check_up()?;
        let mut found = false;
        for namespace in [Namespace::home(tenant), Namespace::shared()] {
            let key = (namespace, wanted.name.clone());
            let missed = self.inner.misses.get(&key).map(|missed| *missed);
            if missed.is_some_and(|missed| missed.elapsed() < self.inner.config.interval) {
                continue;
            }
            if self.reread(&key).await? {
                found = true;
            } else {
                self.remember_miss(key);
            }
        }
        Ok(found)
    }

    /// What was looked for in vain is not looked for again for a while.
    pub(super) fn remember_miss(&self, key: Key) {
        // Names that nobody has must not fill the memory.
        if self.inner.misses.len() >= MAX_MISSES {
            self.inner.misses.clear();
        }
        self.inner.misses.insert(key, Instant::now());
    }

    /// Loads pinned adapters that are not in memory. What can't be is told: in the log once, in readiness and metrics for as
    /// long as it lasts.
    pub(super) async fn load_pinned(&self) {
        let pinned = |entry: &super::Name| matches!(entry.pointer.entry, Entry::Adapter { pinned: true, .. });
        let keys: Vec<Key> =
            self.inner.names.iter().filter(|entry| pinned(entry)).map(|entry| entry.key().clone()).collect();
        let mut missing = HashMap::new();
        for (namespace, name) in keys {
            let wanted = AdapterRef { name, version: None };
            let Ok(Some(found)) = self.known_in(&namespace, &wanted) else { continue };
            // Those before it took their time, and it may be pinned no more.
            if !found.pinned {
                continue;
            }
            if let Err(error) = self.load_pin(&found).await {
                missing.insert(found.key(), error);
            }
        }
        self.tell_missing(missing);
    }

    /// Pins and loads one adapter. One pin too many, of another server perhaps, is not loaded: it would only drive out others.
    /// One that can't be loaded gives its share of the pins back.
    async fn load_pin(&self, found: &Found) -> Result<(), LoadError> {
        let key = found.key();
        self.inner.residency.pin(&key, found.version.bytes)?;
        let loaded = match found.resident {
            Residence::Store => self.lease(found).await.map(drop),
            _ => Ok(()),
        };
        let wanted = AdapterRef { name: found.name.clone(), version: None };
        let now = self.known_in(&found.namespace, &wanted).ok().flatten();
        // Whoever has unpinned or replaced it meanwhile may have come before the pin.
        let still = now.is_some_and(|now| now.pinned && now.version.version == found.version.version);
        if !still || loaded.is_err() {
            self.inner.residency.unpin(&key);
        }
        if still { loaded } else { Ok(()) }
    }

    fn tell_missing(&self, missing: HashMap<ResidentKey, LoadError>) {
        let missing = missing.into_iter().map(|(key, error)| (key, MissingPin::of(&error)));
        let missing: HashMap<ResidentKey, MissingPin> = missing.collect();
        let mut known = self.inner.missing_pins.lock().unwrap_or_else(PoisonError::into_inner);
        let over = known.keys().filter(|key| !missing.contains_key(key));
        over.for_each(|(namespace, name, _)| {
            tracing::info!(adapter = %name, %namespace, "a pinned adapter is held in memory now, or is pinned no more");
        });
        for (key, pin) in &missing {
            if known.get(key).is_none_or(|before| before.news(pin)) {
                let (namespace, name, version) = key;
                let error = &pin.cause;
                tracing::warn!(adapter = %name, %namespace, %version, error, "a pinned adapter is not held in memory");
            }
        }
        for fault in PinFault::ALL {
            let count = missing.values().filter(|pin| pin.fault == fault).count();
            self.inner.metrics.missing_pins.set(fault, count);
        }
        *known = missing;
    }
}
