//! The threads that compute: chunks of one op's work, and disjoint tiles of its output.
//!
//! The engine owns one pool and every op holds a clone. Chunks are handed out dynamically, the caller works too, and no
//! op's result may depend on how its work was cut.

mod crew;
#[cfg(test)]
mod tests;
mod tiles;

use std::num::NonZeroUsize;
use std::sync::Arc;

use self::crew::Crew;
pub use self::tiles::{Bands, TileGrid, TileMut};

/// A fixed number of threads, the caller among them, that run one op's chunks. A clone shares the threads, which end with
/// the last clone.
///
/// Between ops the threads spin for a few microseconds, then offer their core to others, then sleep: an op of ten
/// microseconds is shared without a system call as long as ops follow each other.
#[derive(Clone, Debug)]
pub struct ComputePool {
    /// The threads beside the caller; none when the pool is serial.
    crew: Option<Arc<Crew>>,
    threads: usize,
}

/// Why a pool could not be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not start {threads} compute threads: {source}. Lower the number of threads or raise the process limit"
)]
pub struct PoolError {
    threads: usize,
    source: std::io::Error,
}

impl ComputePool {
    /// A pool in which `threads` threads compute, counting the one that calls.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn new(threads: NonZeroUsize) -> Result<ComputePool, PoolError> {
        let threads = threads.get();
        if threads == 1 {
            return Ok(ComputePool::serial());
        }
        let crew = Crew::new(threads - 1).map_err(|source| PoolError { threads, source })?;
        Ok(ComputePool { crew: Some(Arc::new(crew)), threads })
    }

    /// A pool that computes on the calling thread alone.
    pub fn serial() -> ComputePool {
        ComputePool { crew: None, threads: 1 }
    }

    /// How many threads compute at once, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work` once for every chunk in `0..chunks`, on any thread in any order, and returns when all are done.
    ///
    /// One chunk, or a serial pool, runs on the caller without waking anybody; so does a call from within a chunk, or while
    /// another thread uses the pool. A panic in `work` reaches the caller, once no thread is in `work` any more.
    pub fn run(&self, chunks: usize, work: impl Fn(usize) + Sync) {
        match &self.crew {
            Some(crew) if chunks > 1 => crew.run(chunks, &work),
            _ => (0..chunks).for_each(work),
        }
    }
}
