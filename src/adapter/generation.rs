//! One immutable state of a named adapter, and the lease that a request holds on it.

use std::{
    ops::Deref,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

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
        Self { id, name, version, manifest, weights: Arc::new(weights), card, created_at }
    }

    /// A number that no other generation has or will have in this process, not even one of the same content; from 1.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The adapter's name.
    pub fn name(&self) -> &AdapterName {
        &self.name
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
#[derive(Debug, Clone)]
pub struct AdapterLease(Arc<Generation>);

impl AdapterLease {
    /// A lease on a generation, also of one that no registry holds (a folder given on the command line).
    pub fn new(generation: Arc<Generation>) -> Self {
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
