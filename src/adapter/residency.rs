//! Which adapters are in memory: a budget of bytes, loads on demand, one at a time for each adapter.
//!
//! A resident generation is found without a lock that others hold. When the budget is used up, the one that was used least
//! recently (as a clock hand sees it) goes, unless it is pinned or leased; when all are, whoever needs room waits in line.

mod error;
mod pins;
mod residence;

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub use error::LoadError;
use pins::Pins;
pub use residence::Residence;

use super::generation::{AdapterLease, Generation};
use crate::{
    domain::{AdapterName, Namespace, Version},
    telemetry::Metrics,
};

/// What memory is counted in.
const UNIT: u64 = 256;

/// Most loads that wait for room; one more is refused.
const MAX_WAITING: usize = 4096;

/// How long a load waits for room before it says that there is none: those that fill it may be pinned for good.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which adapter: equal keys, equal content.
pub type ResidentKey = (Namespace, AdapterName, Version);

type Loading = Shared<BoxFuture<'static, Result<AdapterLease, LoadError>>>;

/// What is known of one adapter.
enum Slot {
    Ready(Resident),
    Loading(Loading),
}

/// A load under way. Whether anybody still waits for it or not, its slot is free for another one when it has failed.
struct Attempt<'a> {
    inner: &'a Inner,
    key: &'a ResidentKey,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.inner.slots.remove_if(self.key, |_, slot| matches!(slot, Slot::Loading(_))).is_some() {
            // It has given back the memory that it had.
            self.inner.freed.notify_waiters();
        }
    }
}

struct Resident {
    generation: Arc<Generation>,
    /// Used since the hand came by.
    used: AtomicBool,
    /// Gives the memory back when it is dropped.
    _memory: OwnedSemaphorePermit,
}

/// The adapters in memory. Cheap to clone.
#[derive(Clone)]
pub struct Residency {
    inner: Arc<Inner>,
}

struct Inner {
    slots: DashMap<ResidentKey, Slot>,
    pinned: Mutex<Pins>,
    /// The clock: keys in the order in which the hand meets them.
    clock: Mutex<VecDeque<ResidentKey>>,
    budget: u64,
    memory: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Who holds it is first in line for memory.
    line: tokio::sync::Mutex<()>,
    /// Rings when a lease ends or a pin is taken off.
    freed: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl Residency {
    /// Room for `budget` bytes of adapters.
    pub fn new(budget: u64, metrics: Arc<Metrics>) -> Self {
        let units = usize::try_from(budget / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let inner = Inner {
            slots: DashMap::new(),
            pinned: Mutex::new(Pins::new(budget)),
            clock: Mutex::default(),
            budget,
            memory: Arc::new(Semaphore::new(units)),
            waiting: AtomicUsize::new(0),
            line: tokio::sync::Mutex::default(),
            freed: Arc::default(),
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// A lease on an adapter that is in memory.
    pub fn get(&self, key: &ResidentKey) -> Option<AdapterLease> {
        let slot = self.inner.slots.get(key)?;
        let Slot::Ready(resident) = &*slot else { return None };
        resident.used.store(true, Ordering::Relaxed);
        // While the slot is held: who evicts looks at the leases under the same lock.
        Some(AdapterLease::new(Arc::clone(&resident.generation)))
    }

    /// A lease on an adapter, which `load` fetches where it is not in memory. However many ask, it runs once; it goes on when
    /// they all give up, and when it fails, all are told and the next one tries anew.
    ///
    /// # Errors
    /// When it does not fit or `load` fails.
    pub async fn acquire(
        &self,
        key: &ResidentKey,
        bytes: usize,
        load: impl Future<Output = Result<Generation, LoadError>> + Send + 'static,
    ) -> Result<AdapterLease, LoadError> {
        if let Some(lease) = self.get(key) {
            return Ok(lease);
        }
        let loading = match self.inner.slots.entry(key.clone()) {
            Entry::Occupied(slot) => match slot.get() {
                Slot::Ready(resident) => return Ok(AdapterLease::new(Arc::clone(&resident.generation))),
                Slot::Loading(loading) => loading.clone(),
            },
            Entry::Vacant(vacant) => {
                let (this, key) = (self.clone(), key.clone());
                // On a task of its own: who asked may go away, others wait for it too.
                let task = tokio::spawn(async move {
                    // However it ends, the panics of `load` among it: the next one must not be told this one's failure.
                    let _ends = Attempt { inner: &this.inner, key: &key };
                    this.load(key.clone(), bytes, load).await
                });
                let name = vacant.key().1.clone();
                let loading = task
                    .map(move |done| {
                        let reason = "its loader panicked; the server's log has more".to_owned();
                        done.unwrap_or(Err(LoadError::Failed { name, reason }))
                    })
                    .boxed()
                    .shared();
                vacant.insert(Slot::Loading(loading.clone()));
                loading
            }
        };
        loading.await
    }

    async fn load(
        &self,
        key: ResidentKey,
        bytes: usize,
        load: impl Future<Output = Result<Generation, LoadError>> + Send,
    ) -> Result<AdapterLease, LoadError> {
        let loads = &self.inner.metrics.adapter_loads;
        let loaded = async {
            let memory = self.reserve(&key.1, bytes as u64).await?;
            Ok((load.await?, memory))
        };
        let (generation, memory) = loaded.await.inspect_err(|_| loads.error.inc())?;
        loads.ok.inc();
        Ok(self.admit(key, generation, memory))
    }

    /// Takes in what is in memory already, if there is room without waiting.
    pub fn offer(&self, key: ResidentKey, generation: Generation) {
        let Some(units) = self.units(generation.weights().bytes() as u64) else { return };
        self.make_room(units);
        if let Ok(memory) = Arc::clone(&self.inner.memory).try_acquire_many_owned(units) {
            self.admit(key, generation, memory);
        }
    }

    fn admit(
        &self,
        key: ResidentKey,
        mut generation: Generation,
        memory: OwnedSemaphorePermit,
    ) -> AdapterLease {
        generation.rings(Arc::clone(&self.inner.freed));
        let generation = Arc::new(generation);
        let lease = AdapterLease::new(Arc::clone(&generation));
        let resident = Resident { generation, used: AtomicBool::new(true), _memory: memory };
        let former = self.inner.slots.insert(key.clone(), Slot::Ready(resident));
        self.mark(&key);
        if matches!(former, Some(Slot::Ready(_))) {
            self.inner.freed.notify_waiters();
        } else {
            self.clock().push_back(key);
        }
        self.show();
        lease
    }

    /// Waits in line for `bytes`.
    async fn reserve(&self, name: &AdapterName, bytes: u64) -> Result<OwnedSemaphorePermit, LoadError> {
        let budget = self.inner.budget;
        let units = self.units(bytes).ok_or(LoadError::TooLarge { name: name.clone(), bytes, budget })?;
        let _place = Place::take(&self.inner.waiting)?;
        let reserved = tokio::time::timeout(PATIENCE, self.reserve_in_turn(units)).await;
        reserved.map_err(|_| LoadError::Crowded(self.inner.waiting.load(Ordering::Acquire)))
    }

    /// Only the first in line looks for room: a thousand who look at every bell would look for nothing but each other.
    async fn reserve_in_turn(&self, units: u32) -> OwnedSemaphorePermit {
        let _turn = self.inner.line.lock().await;
        loop {
            // Before the look at what can go: what is freed behind the look rings.
            let freed = self.inner.freed.notified();
            self.make_room(units);
            if let Ok(memory) = Arc::clone(&self.inner.memory).try_acquire_many_owned(units) {
                return memory;
            }
            freed.await;
        }
    }

    /// `bytes` in units; `None` when that is more than there is.
    fn units(&self, bytes: u64) -> Option<u32> {
        let most = self.inner.budget / UNIT;
        u32::try_from(bytes.div_ceil(UNIT)).ok().filter(|&units| u64::from(units) <= most)
    }

    /// Lets adapters go until `units` are free, or nothing more can go.
    fn make_room(&self, units: u32) {
        let mut clock = self.clock();
        // Twice around: the first time takes the marks of use.
        let mut left = 2 * clock.len();
        while self.inner.memory.available_permits() < units as usize && left > 0 {
            left -= 1;
            let Some(key) = clock.pop_front() else { break };
            let gone = self.inner.slots.remove_if(&key, |key, slot| match slot {
                Slot::Loading(_) => false,
                Slot::Ready(resident) => {
                    let used = resident.used.swap(false, Ordering::Relaxed);
                    !used && !resident.generation.is_leased() && !self.pins().contains(key)
                }
            });
            if gone.is_some() {
                self.inner.metrics.adapter_evictions.host.inc();
            } else if self.inner.slots.contains_key(&key) {
                clock.push_back(key);
            }
        }
        drop(clock);
        self.show();
    }

    /// Keeps an adapter of `bytes` in memory once it is there.
    ///
    /// # Errors
    /// When too much is pinned already.
    pub fn pin(&self, key: &ResidentKey, bytes: usize) -> Result<(), LoadError> {
        self.pins().pin(key, bytes)?;
        self.mark(key);
        Ok(())
    }

    /// Lets the generation in memory know whether it is pinned. Called behind every change of either, and in turn: whoever
    /// comes last has seen what is so.
    fn mark(&self, key: &ResidentKey) {
        if let Some(Slot::Ready(resident)) = self.inner.slots.get(key).as_deref() {
            let pins = self.pins();
            resident.generation.set_pinned(pins.contains(key));
        }
    }

    /// Whether [`Residency::pin`] would do it.
    ///
    /// # Errors
    /// When too much is pinned already.
    pub fn check_pin(&self, key: &ResidentKey, bytes: usize) -> Result<(), LoadError> {
        self.pins().check(key, bytes).map(drop)
    }

    /// Lets an adapter go with the others again.
    pub fn unpin(&self, key: &ResidentKey) {
        let pinned = self.pins().unpin(key);
        if pinned {
            self.mark(key);
            self.inner.freed.notify_waiters();
        }
    }

    /// Where an adapter is.
    pub fn place(&self, key: &ResidentKey) -> Residence {
        let Some(slot) = self.inner.slots.get(key) else { return Residence::Store };
        match &*slot {
            Slot::Ready(held) if held.generation.is_on_device() => Residence::Device,
            Slot::Ready(_) => Residence::Host,
            Slot::Loading(_) => Residence::Store,
        }
    }

    /// Whether an adapter is on its way into memory.
    #[cfg(test)]
    pub fn is_loading(&self, key: &ResidentKey) -> bool {
        self.inner.slots.get(key).is_some_and(|slot| matches!(*slot, Slot::Loading(_)))
    }

    /// Forgets adapters that are no longer served; who holds a lease keeps it.
    pub fn forget(&self, keys: &HashSet<ResidentKey>) {
        for key in keys {
            self.unpin(key);
            self.inner.slots.remove_if(key, |_, slot| matches!(slot, Slot::Ready(_)));
        }
        self.clock().retain(|key| !keys.contains(key));
        self.inner.freed.notify_waiters();
        self.show();
    }

    fn show(&self) {
        let used = self.inner.budget / UNIT
            - (self.inner.memory.available_permits() as u64).min(self.inner.budget / UNIT);
        self.inner.metrics.adapters.host.set(self.clock().len() as i64);
        self.inner.metrics.adapter_bytes.host.set((used * UNIT) as i64);
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, Pins> {
        self.inner.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self) -> std::sync::MutexGuard<'_, VecDeque<ResidentKey>> {
        self.inner.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line for memory.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, LoadError> {
        let place = |held: usize| (held < MAX_WAITING).then_some(held + 1);
        match waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, place) {
            Ok(_) => Ok(Self(waiting)),
            Err(held) => Err(LoadError::Crowded(held)),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
