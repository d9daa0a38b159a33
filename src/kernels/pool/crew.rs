//! The worker threads: how a job reaches them without a system call, and how the caller leaves without waiting for sleepers.
//!
//! One word, `state`, says which job is on offer (its number), whether it may still be entered (OPEN), and how many workers
//! are inside. A worker enters by adding one while the job is open. The caller works on the job itself, and when no chunk is
//! left it clears OPEN and waits for those inside only: a worker that has not woken by then misses the job and is not
//! waited for.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The job may still be entered.
const OPEN: u64 = 1 << 16;
/// The workers inside of the job.
const INSIDE: u64 = OPEN - 1;
/// One job further.
const NEXT: u64 = OPEN << 1;

/// How long an idle worker spins: the pause between two ops of a layer.
const SPIN: Duration = Duration::from_micros(20);
/// How long it then stays awake, offering its core to others: the pause between two steps.
const LINGER: Duration = Duration::from_micros(200);

/// The worker threads of a pool.
#[derive(Debug)]
pub(super) struct Crew {
    shared: Arc<Shared>,
    /// Held by the thread whose job is on offer.
    caller: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

/// What the workers and the caller share.
#[derive(Debug)]
struct Shared {
    state: AtomicU64,
    /// The job on offer. Written by the caller only while nobody is inside and the job is closed, read only inside.
    job: UnsafeCell<*const Job<'static>>,
    stop: AtomicBool,
    /// Workers asleep, or about to be.
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

// SAFETY: every field but `job` is made for sharing. `job` is written while no worker is inside and read by workers inside
// (see `Crew::run` and `Shared::enter`), so it is never accessed at once; what it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as for `Sync`; nothing in it belongs to a thread.
unsafe impl Send for Shared {}

/// One call's chunks.
struct Job<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    chunks: usize,
    next: AtomicUsize,
    /// The first panic.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Crew {
    /// Starts `workers` threads.
    pub(super) fn new(workers: usize) -> std::io::Result<Crew> {
        if workers as u64 > INSIDE {
            return Err(std::io::Error::other(format!("a pool holds at most {INSIDE} threads")));
        }
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(ptr::null()),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
        });
        // Grown in place, so that the threads already started end if one can't be.
        let mut crew = Crew { shared, caller: Mutex::new(()), workers: Vec::with_capacity(workers) };
        for index in 1..=workers {
            let shared = Arc::clone(&crew.shared);
            let name = format!("compute-{index}");
            crew.workers.push(thread::Builder::new().name(name).spawn(move || shared.serve())?);
        }
        Ok(crew)
    }

    /// Runs the chunks on the caller and on every worker that is awake in time.
    pub(super) fn run(&self, chunks: usize, work: &(dyn Fn(usize) + Sync)) {
        let _caller = match self.caller.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // In use: by this very call's parent, or by another thread. The caller does it alone.
            Err(TryLockError::WouldBlock) => return (0..chunks).for_each(work),
        };
        let job = Job { work, chunks, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        let shared = &*self.shared;
        // SAFETY: this thread holds `caller`, and the last job was closed and left by all before its caller let go of it,
        // so nobody reads `job` now. The lifetime that is cast away is restored by this function: below, it closes the job
        // and waits until nobody is inside, and nothing before that can unwind (`drain` catches panics).
        unsafe { *shared.job.get() = ptr::from_ref(&job).cast::<Job<'static>>() };
        shared.open();
        job.drain();
        shared.close();
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.ring();
        for worker in self.workers.drain(..) {
            // A worker's panics are caught and handed to the caller, so there is none to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Puts the job on offer and wakes those who sleep. Called by the caller only.
    fn open(&self) {
        let state = self.state.load(Ordering::Relaxed);
        // Sequentially consistent, as is the sleeper's side: either the sleeper sees the job or this sees the sleeper.
        self.state.store(state.wrapping_add(NEXT) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.ring();
        }
    }

    /// Lets nobody in any more and waits for those inside.
    fn close(&self) {
        let mut state = self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut wait = Wait::new();
        while state & INSIDE != 0 {
            wait.pause();
            state = self.state.load(Ordering::Acquire);
        }
    }

    /// Wakes all sleepers.
    fn ring(&self) {
        // A sleeper holds this from its last look at the state until it sleeps, so the bell can't ring in between.
        drop(self.bed.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_all();
    }

    /// A worker's life.
    fn serve(&self) {
        let mut done = 0;
        while let Some(state) = self.await_job(done) {
            if self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // Another worker came in, or the job was closed: look again.
                continue;
            }
            done = state / NEXT;
            // SAFETY: this worker was counted in while the job was open, and its caller keeps the job alive and in place
            // until the count is back to zero.
            unsafe { (**self.job.get()).drain() };
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// The state with a job on offer other than `done`, or none when the pool ends.
    fn await_job(&self, done: u64) -> Option<u64> {
        let on_offer = || {
            let state = self.state.load(Ordering::SeqCst);
            (state & OPEN != 0 && state / NEXT != done).then_some(state)
        };
        let mut wait = Wait::new();
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(state) = on_offer() {
                return Some(state);
            }
            if wait.pause() {
                let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while !self.stop.load(Ordering::SeqCst) && on_offer().is_none() {
                    bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                wait = Wait::new();
            }
        }
    }
}

impl Job<'_> {
    /// Does chunks until none is left, or one panics.
    fn drain(&self) {
        loop {
            let chunk = self.next.fetch_add(1, Ordering::Relaxed);
            if chunk >= self.chunks {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(chunk))) {
                self.next.store(self.chunks, Ordering::Relaxed);
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                return;
            }
        }
    }
}

/// Waiting in three manners: spin, yield, and then it is time to sleep.
struct Wait {
    start: Instant,
    turns: u32,
    yielding: bool,
}

impl Wait {
    fn new() -> Wait {
        Wait { start: Instant::now(), turns: 0, yielding: false }
    }

    /// Waits a moment; true once it has been long enough to sleep.
    fn pause(&mut self) -> bool {
        if self.yielding {
            thread::yield_now();
            return self.start.elapsed() > LINGER;
        }
        spin_loop();
        self.turns += 1;
        // The clock costs as much as many turns.
        if self.turns.is_multiple_of(32) {
            self.yielding = self.start.elapsed() > SPIN;
        }
        false
    }
}
