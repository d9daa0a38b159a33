//! Adapters as the kernels know them: slots of a batch, and what a GPU may copy.

use super::RunnerError;
use crate::{
    adapter::{AdapterLease, AdapterWeights, Generation, Update},
    kernels::dept_embed::{
        AdapterSlot, AdapterSource, Adapters, AdeptSlot, Claim, LowRankSlot, Prefetch, ResidentAdapters,
        UpdateSlot, Wanted,
    },
};

/// Brings adapters near the model while the requests that will need them wait. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Fetch(Prefetch);

impl From<Prefetch> for Fetch {
    fn from(prefetch: Prefetch) -> Self {
        Self(prefetch)
    }
}

impl Fetch {
    /// Wants the adapter where the model computes; waits for nothing.
    pub fn bring(&self, lease: &AdapterLease) {
        if !lease.is_on_device() {
            self.0.bring(wanted(lease));
        }
    }
}

fn wanted(lease: &AdapterLease) -> Wanted<'_> {
    Wanted { id: lease.id(), slot: AdapterSlot::from(&**lease.weights()), source: lease.watch() }
}

impl AdapterSource for Generation {
    fn slot(&self) -> AdapterSlot<'_> {
        AdapterSlot::from(&**self.weights())
    }

    fn claim(&self) -> Claim {
        if self.is_leased() {
            Claim::Leased
        } else if self.is_pinned() {
            Claim::Pinned
        } else {
            Claim::None
        }
    }

    fn moved(&self, on_device: bool) {
        self.set_on_device(on_device);
    }
}

/// The adapters of a batch, each generation once, numbered as the row table names them.
#[derive(Debug, Default)]
pub(super) struct Slots<'a>(Vec<&'a AdapterLease>);

impl<'a> Slots<'a> {
    /// The slot of a generation.
    pub fn number(&mut self, lease: &'a AdapterLease) -> u32 {
        let known = self.0.iter().position(|held| held.same(lease));
        let slot = known.unwrap_or_else(|| {
            self.0.push(lease);
            self.0.len() - 1
        });
        slot as u32
    }

    /// The tensors, by slot, where the model computes.
    pub fn held(&self, residents: &mut ResidentAdapters) -> Result<Adapters<'a>, RunnerError> {
        Ok(residents.hold(self.0.iter().map(|lease| wanted(lease)).collect())?)
    }
}

impl<'a> From<&'a AdapterWeights> for AdapterSlot<'a> {
    /// An adapter as the embedding kernel reads it.
    fn from(weights: &'a AdapterWeights) -> Self {
        let update = match weights.update() {
            Update::None => UpdateSlot::None,
            Update::LowRank(pair) => UpdateSlot::LowRank(LowRankSlot {
                a: pair.a().data(),
                b: pair.b().data(),
                rank: pair.rank(),
                scale: pair.scale(),
            }),
            Update::Adept(network) => UpdateSlot::Adept(AdeptSlot {
                a: network.a().data(),
                bias_a: network.bias_a().data(),
                b: network.b().data(),
                bias_b: network.bias_b().data(),
            }),
        };
        Self { prompt: weights.prompt().data(), update }
    }
}
