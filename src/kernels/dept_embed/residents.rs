use std::sync::{Arc, atomic::AtomicBool};

use candle_core::Result;

use super::{AdapterSlot, Adapters};
use crate::kernels::Place;

/// An adapter that a step needs.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// A number that stands for this very content for as long as the process lives.
    pub id: u64,
    /// Told whether the adapter is in the device's memory.
    pub resident: &'a Arc<AtomicBool>,
    /// Its tensors.
    pub slot: AdapterSlot<'a>,
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

/// Adapters in a GPU's own memory, within a budget: what a step needs is copied where it is not there yet, and those that
/// were not needed for longest make room. On the CPU there is nothing to copy, and this does nothing.
#[derive(Debug)]
pub struct ResidentAdapters {
    #[cfg(feature = "cuda")]
    there: Option<super::card_pool::CardPool>,
}

impl ResidentAdapters {
    /// An empty pool of `bytes` at `place`.
    ///
    /// # Errors
    /// When the device does not have as much memory.
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

    /// Brings the adapters of a step to the device. What an earlier step held may be overwritten from here on.
    ///
    /// # Errors
    /// When the device fails, or has no memory for what the budget does not hold.
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
