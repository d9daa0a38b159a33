//! The threads that compute: chunks of one op's work, and disjoint tiles of its output.
//!
//! The engine owns one pool and every op holds a clone. Chunks are handed out dynamically, the caller works too, and no
//! op's result may depend on how its work was cut.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A fixed number of threads, the caller among them, that run one op's chunks.
#[derive(Clone, Debug)]
pub struct ComputePool {
    /// The threads beside the caller; none when the pool is serial.
    workers: Option<Arc<rayon::ThreadPool>>,
    threads: usize,
}

/// Why a pool could not be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not start {threads} compute threads: {source}. Lower the number of threads or raise the process limit"
)]
pub struct PoolError {
    threads: usize,
    source: rayon::ThreadPoolBuildError,
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
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(threads - 1)
            .thread_name(|index| format!("compute-{}", index + 1))
            .build()
            .map_err(|source| PoolError { threads, source })?;
        Ok(ComputePool { workers: Some(Arc::new(workers)), threads })
    }

    /// A pool that computes on the calling thread alone.
    pub fn serial() -> ComputePool {
        ComputePool { workers: None, threads: 1 }
    }

    /// How many threads compute at once, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work` once for every chunk in `0..chunks`, on any thread in any order, and returns when all are done.
    ///
    /// One chunk, or a serial pool, runs on the caller without waking anybody. A panic in `work` reaches the caller.
    pub fn run(&self, chunks: usize, work: impl Fn(usize) + Sync) {
        let Some(workers) = self.workers.as_ref().filter(|_| chunks > 1) else {
            return (0..chunks).for_each(work);
        };
        let next = AtomicUsize::new(0);
        let drain = || {
            loop {
                let chunk = next.fetch_add(1, Ordering::Relaxed);
                if chunk >= chunks {
                    break;
                }
                work(chunk);
            }
        };
        workers.in_place_scope(|scope| {
            for _ in 0..(self.threads - 1).min(chunks - 1) {
                scope.spawn(|_| drain());
            }
            drain();
        });
    }

    /// Cuts `out`, a row-major matrix, into the tiles of `grid` and calls `work` once for each of them.
    ///
    /// # Panics
    /// When `out` does not hold `grid.rows * grid.columns` elements or a tile side is zero.
    pub fn for_each_tile<T: Send>(
        &self,
        out: &mut [T],
        grid: TileGrid,
        work: impl Fn(TileMut<'_, T>) + Sync,
    ) {
        assert_eq!(out.len(), grid.rows * grid.columns, "the output is a matrix of the grid's size");
        let across = grid.columns.div_ceil(grid.tile_columns);
        let down = grid.rows.div_ceil(grid.tile_rows);
        let base = SharedBase(out.as_mut_ptr());
        self.run(across * down, |index| {
            let rows = span(index / across, grid.tile_rows, grid.rows);
            let columns = span(index % across, grid.tile_columns, grid.columns);
            work(TileMut { base: base.get(), stride: grid.columns, rows, columns, borrow: PhantomData });
        });
    }
}

/// The `index`-th span of length `step` in `0..end`.
fn span(index: usize, step: usize, end: usize) -> Range<usize> {
    index * step..((index + 1) * step).min(end)
}

/// How an output matrix is cut into tiles. Tiles at the right and lower edges may be smaller.
#[derive(Clone, Copy, Debug)]
pub struct TileGrid {
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub columns: usize,
    /// Rows of a tile, at least 1.
    pub tile_rows: usize,
    /// Columns of a tile, at least 1.
    pub tile_columns: usize,
}

/// One tile of an output matrix: the exclusive right to write its elements.
#[derive(Debug)]
pub struct TileMut<'a, T> {
    /// The matrix's first element.
    base: *mut T,
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> TileMut<'_, T> {
    /// The matrix rows that this tile covers.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The matrix columns that this tile covers.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The part `columns` of the matrix row `row`, both counted in the whole matrix.
    ///
    /// # Panics
    /// When they lie outside of the tile.
    pub fn row_mut(&mut self, row: usize, columns: Range<usize>) -> &mut [T] {
        assert!(self.rows.contains(&row), "row {row} lies outside of the tile's {:?}", self.rows);
        assert!(
            self.columns.start <= columns.start
                && columns.start <= columns.end
                && columns.end <= self.columns.end,
            "columns {columns:?} lie outside of the tile's {:?}",
            self.columns
        );
        // SAFETY: `base` starts a live, exclusively borrowed matrix (lifetime 'a) of which row and columns are part, as
        // asserted above and by `for_each_tile`. The tiles of a grid are disjoint and each is made once, and `&mut self`
        // allows one slice of this tile at a time, so no other reference to these elements exists.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.add(row * self.stride + columns.start), columns.len())
        }
    }
}

/// The start of an output matrix, on its way to the threads that write disjoint tiles of it.
struct SharedBase<T>(*mut T);

impl<T> SharedBase<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: the pointer is only turned into references by `TileMut`, whose tiles are disjoint, so sharing it sends each
// element to at most one thread; `T: Send` allows that.
unsafe impl<T: Send> Sync for SharedBase<T> {}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should stop here")]

    use super::*;
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::AtomicU32;

    fn pool(threads: usize) -> ComputePool {
        ComputePool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    #[test]
    fn every_chunk_runs_once() {
        for threads in 1..=3 {
            for chunks in [0, 1, 2, 7, 100] {
                let seen: Vec<AtomicU32> = (0..chunks).map(|_| AtomicU32::new(0)).collect();
                pool(threads).run(chunks, |chunk| {
                    seen[chunk].fetch_add(1, Ordering::Relaxed);
                });
                assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} threads");
            }
        }
    }

    #[test]
    fn tiles_cover_the_matrix_once() {
        for (rows, columns, tile_rows, tile_columns) in
            [(5, 7, 2, 3), (1, 64, 6, 64), (3, 3, 1, 1), (0, 4, 2, 2)]
        {
            let mut out = vec![0u32; rows * columns];
            pool(2).for_each_tile(
                &mut out,
                TileGrid { rows, columns, tile_rows, tile_columns },
                |mut tile| {
                    for row in tile.rows() {
                        let columns = tile.columns();
                        for (cell, column) in tile.row_mut(row, columns.clone()).iter_mut().zip(columns) {
                            *cell += (row * 100 + column + 1) as u32;
                        }
                    }
                },
            );
            let expected: Vec<u32> = (0..rows)
                .flat_map(|row| (0..columns).map(move |column| (row * 100 + column + 1) as u32))
                .collect();
            assert_eq!(out, expected);
        }
    }

    #[test]
    #[should_panic(expected = "outside of the tile")]
    fn a_tile_does_not_lend_its_neighbours() {
        let mut out = vec![0u32; 4];
        let grid = TileGrid { rows: 2, columns: 2, tile_rows: 1, tile_columns: 2 };
        pool(1).for_each_tile(&mut out, grid, |mut tile| {
            tile.row_mut(tile.rows().end, 0..2);
        });
    }

    #[test]
    fn a_panic_in_a_chunk_reaches_the_caller() {
        let pool = pool(2);
        let outcome =
            std::panic::catch_unwind(AssertUnwindSafe(|| pool.run(8, |chunk| assert_ne!(chunk, 5))));
        assert!(outcome.is_err());
        let count = AtomicU32::new(0);
        pool.run(8, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 8);
    }
}
