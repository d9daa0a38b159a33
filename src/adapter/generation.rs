//! One immutable state of a named adapter, and the lease that a request holds on it.

use std::{
    ops::Deref,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::Notify;

use super::{card::Card, manifest::Manifest, version::version, weights::AdapterWeights};
use crate::domain::{AdapterName, Version};

/// One immutable state of a named adapter. A swap publishes another one and leaves this one as it is.
#[derive(Debug)]
pub struct Generation {
    id: u64,
    name: AdapterName,
    version: Version,
    manifest: Manifest,
    weights: Arc<AdapterWeights>,
    card: Card,
    created_at: SystemTime,
    leases: AtomicUsize,
    on_device: AtomicBool,
    pinned: AtomicBool,
    /// Rings when the last lease ends.
    unused: Option<Arc<Notify>>,
}

impl Generation {
    /// Names checked content; the version is computed from it.
    pub fn new(
        name: AdapterName,
        manifest: Manifest,
        weights: AdapterWeights,
        card: Card,
        created_at: SystemTime,
    ) -> Self {
        /// Only ever counts up, so that what is kept under a number is never taken for another generation's.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let version = version(&manifest, &weights, &card);
        Self {
            id,
            name,
            version,
            manifest,
            weights: Arc::new(weights),
            card,
            created_at,
            leases: AtomicUsize::new(0),
            on_device: AtomicBool::new(false),
            pinned: AtomicBool::new(false),
            unused: None,
        }
    }

    /// A number that no other generation has or will have in this process, not even one of the same content; from 1.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Lets `bell` ring whenever its last lease ends.
    pub(super) fn rings(&mut self, bell: Arc<Notify>) {
        self.unused = Some(bell);
    }

    /// Whether a request holds it.
    pub fn is_leased(&self) -> bool {
        self.leases.load(Ordering::Acquire) > 0
    }

    /// The adapter's name.
    pub fn name(&self) -> &AdapterName {
        &self.name
    }

    /// Whether its owner wants it to stay in memory.
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Pins it or takes the pin off.
    pub(super) fn set_pinned(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::Relaxed);
    }

    /// Whether a GPU has it in its own memory.
    pub fn is_on_device(&self) -> bool {
        self.on_device.load(Ordering::Relaxed)
    }

    /// Told by who puts it there, and takes it away.
    pub fn set_on_device(&self, on_device: bool) {
        self.on_device.store(on_device, Ordering::Relaxed);
    }

    /// Its content address.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What its config declares.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its tensors.
    pub fn weights(&self) -> &Arc<AdapterWeights> {
        &self.weights
    }

    /// Its card; empty where there is none.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// When its files were written, or it was uploaded.
    pub fn created_at(&self) -> SystemTime {
        self.created_at
    }
}

/// Holds a generation for as long as a request needs it, whatever is published meanwhile. Cheap to clone.
#[derive(Debug)]
pub struct AdapterLease(Arc<Generation>);

impl Clone for AdapterLease {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl Drop for AdapterLease {
    fn drop(&mut self) {
        if self.0.leases.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(bell) = &self.0.unused
        {
            bell.notify_waiters();
        }
    }
}

impl AdapterLease {
    /// A lease on a generation, also of one that no catalogue holds (a folder given on the command line).
    pub fn new(generation: Arc<Generation>) -> Self {
        generation.leases.fetch_add(1, Ordering::AcqRel);
        Self(generation)
    }

    /// What tells later whether the generation is still there, without holding it.
    pub fn watch(&self) -> Weak<Generation> {
        Arc::downgrade(&self.0)
    }

    /// Whether both hold the very same generation.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for AdapterLease {
    type Target = Generation;

    fn deref(&self) -> &Generation {
        &self.0
    }
}
