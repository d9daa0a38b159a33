use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::kernels::miri::unless_miri;

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
    for (rows, columns, tile_rows, tile_columns) in [(5, 7, 2, 3), (1, 64, 6, 64), (3, 3, 1, 1), (0, 4, 2, 2)]
    {
        let mut out = vec![0u32; rows * columns];
        pool(2).for_each_tile(&mut out, TileGrid { rows, columns, tile_rows, tile_columns }, |mut tile| {
            for row in tile.rows() {
                let columns = tile.columns();
                for (cell, column) in tile.row_mut(row, columns.clone()).iter_mut().zip(columns) {
                    *cell += (row * 100 + column + 1) as u32;
                }
            }
        });
        let expected: Vec<u32> = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row * 100 + column + 1) as u32))
            .collect();
        assert_eq!(out, expected);
    }
}

#[test]
fn bands_cover_the_matrix_once() {
    for (ends, columns, tile_columns) in [(&[2, 2, 5][..], 7, 3), (&[1], 4, 4), (&[], 3, 2), (&[0, 3], 1, 1)]
    {
        let rows = ends.last().copied().unwrap_or(0);
        let mut out = vec![0usize; rows * columns];
        pool(2).for_each_band(&mut out, &Bands { ends, columns, tile_columns }, |band, mut tile| {
            for row in tile.rows() {
                let columns = tile.columns();
                tile.row_mut(row, columns).iter_mut().for_each(|cell| *cell += band + 1);
            }
        });
        let band_of = |row: usize| ends.iter().position(|&end| row < end).unwrap() + 1;
        let expected: Vec<usize> = (0..rows * columns).map(|cell| band_of(cell / columns)).collect();
        assert_eq!(out, expected);
        // SAFETY: every row of the tile is written in all of its columns.
        let filled = unsafe {
            pool(2).fill_bands(&Bands { ends, columns, tile_columns }, |band, mut tile| {
                for row in tile.rows() {
                    let columns = tile.columns();
                    tile.row_mut(row, columns).iter_mut().for_each(|cell| _ = cell.write(band + 1));
                }
            })
        };
        assert_eq!(filled, expected);
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
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| pool.run(8, |chunk| assert_ne!(chunk, 5))));
    assert!(outcome.is_err());
    let count = AtomicU32::new(0);
    pool.run(8, |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(count.into_inner(), 8);
}

#[test]
fn a_chunk_may_use_its_own_pool() {
    let (pool, count) = (pool(3), AtomicU32::new(0));
    pool.run(6, |_| {
        pool.run(5, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(count.into_inner(), 30);
}

#[test]
fn threads_may_share_a_pool() {
    let (pool, count) = (pool(2), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..20 {
                    pool.clone().run(4, |_| {
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 240);
}

#[test]
fn many_small_jobs_each_see_only_their_own_chunks() {
    let pool = pool(3);
    for round in 0..unless_miri(5000, 20) {
        // A job's state lives on this stack frame: a worker that came late would write to the next round's.
        let sum = AtomicU32::new(0);
        pool.run(3, |chunk| {
            sum.fetch_add(round * 3 + chunk as u32, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), round * 9 + 3);
    }
}

#[test]
fn more_threads_than_can_be_counted_are_refused() {
    let error = ComputePool::new(NonZeroUsize::MAX).unwrap_err();
    assert!(error.to_string().contains("could not start"));
}
