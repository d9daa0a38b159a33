//! Adapters in a GPU's memory: one allocation, cut by a [`Shelf`], filled from pinned memory by a thread and a stream of
//! their own.
//!
//! Steps never wait for a copy that has not begun: what is not there when a step needs it is copied for that step alone. The
//! compute stream waits for the copies that its step reads, and a copy for the steps that read what it overwrites.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use candle_core::{
    CudaDevice, Result,
    cuda::{WrapErr, cudarc},
};
use cudarc::driver::{CudaSlice, CudaStream, PinnedHostSlice, result::memcpy_htod_async};

use super::{
    ResidentUse, Wanted,
    cuda::{Held, Layout},
    shelf::{Errand, Order, Shelf},
};
use crate::kernels::cuda::{
    Address, bytes_of,
    device::{address, upload},
};

/// Pinned memory that copies go through; in tests so little that it is used up.
const STAGING_BYTES: usize = if cfg!(test) { 100 << 10 } else { 8 << 20 };

/// The pool of a device.
pub(super) struct CardPool {
    device: CudaDevice,
    base: Address,
    orders: Orders,
    /// The stream of the copies.
    copies: Arc<CudaStream>,
    /// The last copy that the compute stream has waited for.
    joined: u64,
    copier: Option<JoinHandle<()>>,
    /// Freed when the copier has ended.
    _memory: CudaSlice<u8>,
}

impl std::fmt::Debug for CardPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CardPool").field("use", &self.resident_use()).finish_non_exhaustive()
    }
}

impl CardPool {
    /// An empty pool of `bytes`.
    pub fn new(device: &CudaDevice, bytes: usize) -> Result<Self> {
        // SAFETY: a piece is filled before a kernel hears of it.
        let memory = unsafe { device.alloc::<u8>(bytes.max(1))? };
        let base = address(device, &memory);
        let orders = Orders(Arc::new(Desk::new(bytes)));
        let copier = Copier::new(device, base, orders.clone())?;
        let copies = Arc::clone(&copier.copies);
        let thread = std::thread::Builder::new().name("adapters".to_owned());
        let copier = Some(thread.spawn(move || copier.run()).map_err(candle_core::Error::wrap)?);
        Ok(Self { device: device.clone(), base, orders, copies, joined: 0, copier, _memory: memory })
    }

    /// The way to ask for adapters.
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// A new step. What the one before it held may make room for those in line.
    pub fn begin_step(&self) {
        let mut state = self.orders.0.state();
        state.shelf.next_step();
        if state.shelf.has_orders() {
            self.orders.0.bell.notify_one();
        }
    }

    /// What a step wants, in its order.
    pub fn hold(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<Held>> {
        let layouts: Vec<Layout> = wanted.iter().map(|wanted| Layout::of(&wanted.slot)).collect();
        let spots: Vec<_> = {
            let mut state = self.orders.0.state();
            let shelf = &mut state.shelf;
            let spots = wanted.iter().zip(&layouts).map(|(wanted, layout)| {
                let spot = shelf.find(wanted.id);
                if spot.is_none() {
                    shelf.order(order(wanted, layout.bytes));
                }
                spot
            });
            let spots = spots.collect();
            if shelf.has_orders() {
                self.orders.0.bell.notify_one();
            }
            spots
        };
        let newest = spots.iter().flatten().map(|spot| spot.copy).max().unwrap_or_default();
        if newest > self.joined {
            self.device.cuda_stream().join(&self.copies).w()?;
            self.joined = newest;
        }
        let held = spots.into_iter().zip(&layouts).zip(wanted);
        held.map(|((spot, layout), wanted)| match spot {
            Some(spot) => Ok(layout.at(self.base.offset(spot.start))),
            None => {
                let memory = upload(&self.device, &layout.numbers(&wanted.slot))?;
                Ok(layout.own(&self.device, memory))
            }
        })
        .collect()
    }

    pub fn resident_use(&self) -> ResidentUse {
        self.orders.0.state().shelf.resident_use()
    }
}

impl Drop for CardPool {
    fn drop(&mut self) {
        self.orders.0.close();
        // One that panicked has told so.
        let _ = self.copier.take().map(JoinHandle::join);
    }
}

fn order(wanted: &Wanted<'_>, bytes: usize) -> Order {
    Order { id: wanted.id, bytes, source: wanted.source.clone() }
}

/// Where adapters are asked for.
#[derive(Clone)]
pub(super) struct Orders(Arc<Desk>);

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orders").finish_non_exhaustive()
    }
}

impl Orders {
    /// Puts an adapter in line.
    pub fn bring(&self, wanted: &Wanted<'_>) {
        let order = order(wanted, Layout::of(&wanted.slot).bytes);
        let mut state = self.0.state();
        if state.closed {
            return;
        }
        state.shelf.order(order);
        if state.shelf.has_orders() {
            self.0.bell.notify_one();
        }
    }
}

/// What the engine's thread, those that ask and the copier share. It is locked for book-keeping only.
struct Desk {
    state: Mutex<State>,
    /// Rings when there may be something to copy.
    bell: Condvar,
}

struct State {
    shelf: Shelf,
    closed: bool,
}

impl Desk {
    fn new(bytes: usize) -> Self {
        let state = State { shelf: Shelf::new(bytes), closed: false };
        Self { state: Mutex::new(state), bell: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to copy; `None` at the end.
    fn next_errand(&self) -> Option<Errand> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(errand) = state.shelf.next_errand() {
                return Some(errand);
            }
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.state().closed = true;
        self.bell.notify_one();
    }
}

/// A thread with a stream that copies, and the pinned memory that it copies from.
struct Copier {
    orders: Orders,
    base: Address,
    compute: Arc<CudaStream>,
    copies: Arc<CudaStream>,
    staging: PinnedHostSlice<u8>,
    /// Bytes of the staging that a copy under way may still read.
    used: usize,
}

impl Copier {
    fn new(device: &CudaDevice, base: Address, orders: Orders) -> Result<Self> {
        let compute = device.cuda_stream();
        let context = compute.context().clone();
        // SAFETY: bytes are written before they are copied.
        let staging = unsafe { context.alloc_pinned::<u8>(STAGING_BYTES) }.w()?;
        let copies = context.new_stream().w()?;
        Ok(Self { orders, base, compute, copies, staging, used: 0 })
    }

    fn run(mut self) {
        let desk = Arc::clone(&self.orders.0);
        while let Some(errand) = desk.next_errand() {
            match self.copy(&errand) {
                Ok(()) => desk.state().shelf.copied(errand.id),
                Err(error) => {
                    tracing::warn!(%error, "an adapter can't be copied to the GPU's pool: each step that needs it copies it");
                    desk.state().shelf.failed(errand.id);
                }
            }
        }
        // Whatever is under way writes memory that is about to be freed. A device that has failed writes no more.
        let _ = self.copies.synchronize();
    }

    /// Begins a copy.
    fn copy(&mut self, errand: &Errand) -> Result<()> {
        self.copies.context().bind_to_thread().w()?;
        // Kernels of earlier steps may still read what lies there; those of the step under way do not.
        self.copies.join(&self.compute).w()?;
        let slot = errand.source.slot();
        let layout = Layout::of(&slot);
        let numbers = layout.numbers(&slot);
        self.write(self.base.offset(errand.start), bytes_of(&numbers))
    }

    /// Copies bytes to `to`, in pieces that the staging holds.
    fn write(&mut self, mut to: Address, mut left: &[u8]) -> Result<()> {
        while !left.is_empty() {
            if self.used == STAGING_BYTES {
                self.copies.synchronize().w()?;
                self.used = 0;
            }
            let (piece, rest) = left.split_at(left.len().min(STAGING_BYTES - self.used));
            let staged = &mut self.staging.as_mut_slice().w()?[self.used..self.used + piece.len()];
            staged.copy_from_slice(piece);
            // SAFETY: the piece lies in the pool, and the staging is not written again before the stream has passed.
            unsafe { memcpy_htod_async(to.0, staged, self.copies.cu_stream()) }.w()?;
            self.used += piece.len();
            to = to.offset(piece.len());
            left = rest;
        }
        Ok(())
    }
}
