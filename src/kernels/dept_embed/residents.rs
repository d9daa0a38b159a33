use std::sync::Weak;

use candle_core::Result;

use super::{AdapterSlot, Adapters};
use crate::kernels::Place;

/// An adapter in the host's memory, of which a GPU may have a copy.
pub trait AdapterSource: Send + Sync {
    /// Its tensors.
    fn slot(&self) -> AdapterSlot<'_>;
    /// Why its copy should stay.
    fn claim(&self) -> Claim;
    /// Told that there is a copy from now on, or no longer one.
    fn moved(&self, on_device: bool);
}

/// Why a copy should stay where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// There is no reason.
    None,
    /// Its owner wants it near; it goes when nothing else can.
    Pinned,
    /// A request that waits or runs holds it.
    Leased,
}

/// An adapter that a step needs, or will need.
pub struct Wanted<'a> {
    /// A number that stands for this very content for as long as the process lives.
    pub id: u64,
    /// Its tensors.
    pub slot: AdapterSlot<'a>,
    /// Who has them.
    pub source: Weak<dyn AdapterSource>,
}

/// What a GPU's own memory has of adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResidentUse {
    /// Adapters.
    pub adapters: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Adapters that have made room for others since the start.
    pub evictions: u64,
}

/// Adapters in a GPU's own memory, within a budget: what is wanted is copied there by a thread of its own, and those that
/// nobody holds and that were not needed for longest make room. On the CPU there is nothing to copy, and this does nothing.
#[derive(Debug)]
pub struct ResidentAdapters {
    #[cfg(feature = "cuda")]
    there: Option<super::card_pool::CardPool>,
}

impl ResidentAdapters {
    /// An empty pool of `bytes` at `place`.
    ///
    /// # Errors
    /// When the device does not have as much memory, or there is no thread.
    pub fn new(place: &Place, bytes: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = place.device() {
            return Ok(Self { there: Some(super::card_pool::CardPool::new(device, bytes)?) });
        }
        let _ = (place, bytes);
        Ok(Self {
            #[cfg(feature = "cuda")]
            there: None,
        })
    }

    /// What it holds now; nothing on the CPU.
    pub fn resident_use(&self) -> ResidentUse {
        #[cfg(feature = "cuda")]
        if let Some(pool) = &self.there {
            return pool.resident_use();
        }
        ResidentUse::default()
    }

    /// The way to ask for adapters before a step needs them.
    pub fn prefetch(&self) -> Prefetch {
        Prefetch {
            #[cfg(feature = "cuda")]
            orders: self.there.as_ref().map(super::card_pool::CardPool::orders),
        }
    }

    /// A step begins: what the one before it held may be overwritten by what waits for room.
    pub fn begin_step(&mut self) {
        #[cfg(feature = "cuda")]
        if let Some(pool) = &self.there {
            pool.begin_step();
        }
    }

    /// Adapters of a step, as its kernels read them until the next one begins: copies where there are, and of the others copies
    /// for this step alone, while they are fetched.
    ///
    /// # Errors
    /// When the device fails, or has no memory for what is not there.
    pub fn hold<'a>(&mut self, wanted: Vec<Wanted<'a>>) -> Result<Adapters<'a>> {
        #[cfg(feature = "cuda")]
        if let Some(pool) = &mut self.there {
            let held = pool.hold(&wanted)?;
            let slots = wanted.into_iter().map(|wanted| wanted.slot).collect();
            return Ok(Adapters { slots, held });
        }
        Ok(wanted.into_iter().map(|wanted| wanted.slot).collect::<Vec<_>>().into())
    }
}

/// Asks for adapters to be brought to a GPU's memory, from any thread, and waits for nothing. On the CPU it does nothing.
#[derive(Debug, Clone, Default)]
pub struct Prefetch {
    #[cfg(feature = "cuda")]
    orders: Option<super::card_pool::Orders>,
}

impl Prefetch {
    /// Wants an adapter, if it is not there.
    pub fn bring(&self, wanted: Wanted<'_>) {
        #[cfg(feature = "cuda")]
        if let Some(orders) = &self.orders {
            orders.bring(&wanted);
        }
        let _ = wanted;
    }
}
