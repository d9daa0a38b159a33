//! The generations of one adapter: the current one, the last few, and those that requests still hold.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use super::{KEPT_GENERATIONS, RegistryError};
use crate::{adapter::generation::Generation, domain::VersionPrefix};

/// The generations of one adapter.
pub(super) struct Generations {
    pub(super) current: Arc<Generation>,
    /// Former ones, the latest last; at most [`KEPT_GENERATIONS`] - 1.
    former: VecDeque<Arc<Generation>>,
    /// Older ones that live only as long as requests hold them.
    leased: Vec<Weak<Generation>>,
}

impl Generations {
    pub(super) fn new(current: Arc<Generation>) -> Self {
        Self { current, former: VecDeque::new(), leased: Vec::new() }
    }

    /// Makes `next` current. Content that was there before is taken up again, not kept twice.
    pub(super) fn publish(&mut self, next: Arc<Generation>) -> Arc<Generation> {
        let version = next.version();
        if self.current.version() == version {
            return Arc::clone(&self.current);
        }
        let known = self.all().find(|generation| generation.version() == version);
        let next = known.unwrap_or(next);
        self.former.retain(|generation| generation.version() != version);
        self.former.push_back(std::mem::replace(&mut self.current, Arc::clone(&next)));
        if self.former.len() >= KEPT_GENERATIONS {
            self.leased.extend(self.former.pop_front().map(|oldest| Arc::downgrade(&oldest)));
        }
        self.leased.retain(|generation| {
            generation.upgrade().is_some_and(|generation| generation.version() != version)
        });
        next
    }

    /// Every generation that is still there, the current one first.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Generation>> {
        std::iter::once(Arc::clone(&self.current))
            .chain(self.former.iter().rev().cloned())
            .chain(self.leased.iter().filter_map(Weak::upgrade))
    }

    pub(super) fn pinned(&self, wanted: &VersionPrefix) -> Result<Arc<Generation>, RegistryError> {
        let name = || self.current.name().clone();
        let mut fitting = self.all().filter(|generation| wanted.matches(&generation.version()));
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => {
                Err(RegistryError::AmbiguousVersion { name: name(), version: wanted.clone() })
            }
            (None, _) => Err(RegistryError::UnknownVersion {
                name: name(),
                version: wanted.clone(),
                current: self.current.version(),
            }),
        }
    }
}
