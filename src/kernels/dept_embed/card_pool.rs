//! Adapters in a GPU's memory: one allocation, cut by [`Slab`], filled from pinned memory on a stream of its own.
//!
//! The host never waits for a copy: the compute stream waits for the copies of its step, and the copies for the steps that
//! read what they overwrite. Only staging that is full waits, once in so many megabytes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use candle_core::{
    CudaDevice, Result,
    cuda::{WrapErr, cudarc},
};
use cudarc::driver::{CudaSlice, CudaStream, PinnedHostSlice, result::memcpy_htod_async};

use super::{
    ResidentUse, Wanted,
    cuda::{Held, Layout},
    slab::Slab,
};
use crate::kernels::cuda::{
    Address,
    device::{address, upload},
};

/// Pinned memory that copies go through.
const STAGING_BYTES: usize = 8 << 20;

/// The pool of a device.
pub(super) struct CardPool {
    device: CudaDevice,
    memory: CudaSlice<u8>,
    slab: Slab,
    /// Of those in the slab.
    flags: HashMap<u64, Arc<AtomicBool>>,
    copies: Copies,
    evictions: u64,
}

impl std::fmt::Debug for CardPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CardPool").field("slab", &self.slab).finish_non_exhaustive()
    }
}

impl CardPool {
    /// An empty pool of `bytes`.
    pub fn new(device: &CudaDevice, bytes: usize) -> Result<Self> {
        // SAFETY: a piece is filled before a kernel hears of it.
        let memory = unsafe { device.alloc::<u8>(bytes.max(1))? };
        let copies = Copies::new(device)?;
        let (slab, flags) = (Slab::new(bytes), HashMap::new());
        Ok(Self { device: device.clone(), memory, slab, flags, copies, evictions: 0 })
    }

    /// Brings what a step wants to the device, in its order.
    pub fn hold(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<Held>> {
        self.slab.next_step();
        let compute = self.device.cuda_stream();
        let mut copied = false;
        let held = wanted.iter().map(|wanted| {
            let layout = Layout::of(&wanted.slot);
            if let Some(start) = self.slab.find(wanted.id) {
                return Ok(layout.at(self.base(start)));
            }
            let Some(start) = self.make_room(wanted.id, layout.bytes) else {
                // A step that wants more than the budget holds is served all the same, by memory that it gives back.
                let memory = upload(&self.device, &layout.numbers(&wanted.slot))?;
                return Ok(layout.own(&self.device, memory));
            };
            if !copied {
                // Kernels of earlier steps may still read what lay there.
                self.copies.stream.join(&compute).w()?;
                copied = true;
            }
            let place = self.base(start);
            if let Err(error) = self.copies.copy(place, &layout.numbers(&wanted.slot)) {
                self.slab.remove(wanted.id);
                return Err(error);
            }
            wanted.resident.store(true, Ordering::Relaxed);
            self.flags.insert(wanted.id, Arc::clone(wanted.resident));
            Ok(layout.at(place))
        });
        let held = held.collect::<Result<Vec<_>>>();
        if copied {
            compute.join(&self.copies.stream).w()?;
        }
        held
    }

    pub fn resident_use(&self) -> ResidentUse {
        let (adapters, bytes) = self.slab.used();
        ResidentUse { adapters, bytes, evictions: self.evictions }
    }

    fn base(&self, start: usize) -> Address {
        address(&self.device, &self.memory).offset(start)
    }

    fn make_room(&mut self, id: u64, bytes: usize) -> Option<usize> {
        let mut gone = Vec::new();
        let start = self.slab.take(id, bytes, &mut gone);
        self.evictions += gone.len() as u64;
        for flag in gone.iter().filter_map(|id| self.flags.remove(id)) {
            flag.store(false, Ordering::Relaxed);
        }
        start
    }
}

/// A stream that copies, and the pinned memory that it copies from.
struct Copies {
    stream: Arc<CudaStream>,
    staging: PinnedHostSlice<u8>,
    /// Bytes of the staging that a copy under way may still read.
    used: usize,
}

impl Copies {
    fn new(device: &CudaDevice) -> Result<Self> {
        let context = device.cuda_stream().context().clone();
        // SAFETY: bytes are written before they are copied.
        let staging = unsafe { context.alloc_pinned::<u8>(STAGING_BYTES) }.w()?;
        Ok(Self { stream: context.new_stream().w()?, staging, used: 0 })
    }

    /// Copies numbers to `to`, in pieces that the staging holds.
    fn copy(&mut self, to: Address, numbers: &[f32]) -> Result<()> {
        let mut to = to;
        let mut left = crate::kernels::cuda::bytes_of(numbers);
        while !left.is_empty() {
            if self.used == STAGING_BYTES {
                self.stream.synchronize().w()?;
                self.used = 0;
            }
            let (piece, rest) = left.split_at(left.len().min(STAGING_BYTES - self.used));
            let staged = &mut self.staging.as_mut_slice().w()?[self.used..self.used + piece.len()];
            staged.copy_from_slice(piece);
            // SAFETY: the piece lies in the pool, and the staging is not written again before the stream has passed.
            unsafe { memcpy_htod_async(to.0, staged, self.stream.cu_stream()) }.w()?;
            self.used += piece.len();
            to = to.offset(piece.len());
            left = rest;
        }
        Ok(())
    }
}
