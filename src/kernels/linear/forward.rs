//! One call of the op: quantise the rows, cut the output into tiles, run the micro-kernels over them.

use std::cell::Cell;

use super::isa::{Kernels, ROWS};
use super::pack::{BLOCK, Packed, PackedF32, PackedI8};
use super::quantise::{Group, RowLayout};
use super::weights::LinearShape;
use crate::kernels::pool::{ComputePool, TileGrid, TileMut};

/// Weights that make a chunk worth a thread's while: some microseconds of reading or multiplying.
const CHUNK_WORK: usize = 1 << 18;
/// Rows that a tile covers at most, so that their activations stay in the second-level cache beside the weights.
const TILE_ROWS: usize = 32 * ROWS;
/// Activations below which one thread quantises them all.
const QUANTISE_ALONE: usize = 1 << 14;

thread_local! {
    /// Quantised rows, kept from call to call.
    static RECORDS: Cell<Vec<Group>> = const { Cell::new(Vec::new()) };
}

/// `x` (rows, k) through the packed weights into `out` (rows, n).
pub(super) fn forward(
    packed: &Packed,
    shape: LinearShape,
    kernels: Kernels,
    pool: &ComputePool,
    x: &[f32],
    out: &mut [f32],
) {
    let rows = x.len() / shape.k;
    let grid = grid_of(rows, shape, pool.threads());
    match packed {
        Packed::F32(packed) => {
            pool.for_each_tile(out, grid, |tile| tile_f32(packed, kernels, x, shape.k, tile));
        }
        Packed::I8(packed) => {
            let layout = RowLayout::new(shape.k, packed.activations);
            let mut records = RECORDS.take();
            // Whatever an earlier call left is overwritten whole.
            records.resize(rows * layout.record(), Group::default());
            quantise(x, shape.k, layout, kernels, pool, &mut records);
            pool.for_each_tile(out, grid, |tile| tile_i8(packed, kernels, layout, &records, tile));
            RECORDS.set(records);
        }
    }
}

/// How to cut the output: tiles of at most [`TILE_ROWS`] rows, several for a thread where there is work for them.
fn grid_of(rows: usize, shape: LinearShape, threads: usize) -> TileGrid {
    let blocks = shape.n.div_ceil(BLOCK);
    let work = rows.max(1) * shape.n * shape.k;
    let wanted = if threads == 1 { 1 } else { (work / CHUNK_WORK).clamp(1, 4 * threads) };
    let down = rows.max(1).div_ceil(TILE_ROWS).max(wanted.div_ceil(blocks));
    let across = wanted.div_ceil(down).min(blocks);
    TileGrid {
        rows,
        columns: shape.n,
        tile_rows: rows.max(1).div_ceil(down).next_multiple_of(ROWS),
        tile_columns: blocks.div_ceil(across) * BLOCK,
    }
}

/// Quantises all rows into `records`.
fn quantise(
    x: &[f32],
    k: usize,
    layout: RowLayout,
    kernels: Kernels,
    pool: &ComputePool,
    records: &mut [Group],
) {
    let rows = x.len() / k;
    let tile_rows = (QUANTISE_ALONE / k).max(1);
    let grid = TileGrid { rows, columns: layout.record(), tile_rows, tile_columns: layout.record() };
    pool.for_each_tile(records, grid, |mut tile| {
        for row in tile.rows() {
            let record = tile.row_mut(row, 0..layout.record());
            kernels.quantise_row(&x[row * k..(row + 1) * k], layout.bits, record);
        }
    });
}

/// One tile of outputs from int8 products.
fn tile_i8(
    packed: &PackedI8,
    kernels: Kernels,
    layout: RowLayout,
    records: &[Group],
    mut tile: TileMut<'_, f32>,
) {
    let planes = layout.bits.planes();
    let mut sums = [[0; BLOCK]; ROWS];
    for first in tile.columns().step_by(BLOCK) {
        let (lines, columns) = packed.block(first / BLOCK);
        for start in tile.rows().step_by(ROWS / planes) {
            let rows = start..tile.rows().end.min(start + ROWS / planes);
            let mut activations: [&[Group]; ROWS] = [&[]; ROWS];
            for (index, activations) in activations[..rows.len() * planes].iter_mut().enumerate() {
                *activations = layout.plane(records, start + index / planes, index % planes);
            }
            kernels.sums_i8(&activations[..rows.len() * planes], lines, &mut sums);
            for (row, sums) in rows.zip(sums.chunks_exact(planes)) {
                let scale = layout.scale(records, row);
                write_row(&mut tile, row, first, |out| kernels.finish_i8(sums, columns, scale, out));
            }
        }
    }
}

/// One tile of outputs from f32 products.
fn tile_f32(packed: &PackedF32, kernels: Kernels, x: &[f32], k: usize, mut tile: TileMut<'_, f32>) {
    let mut sums = [[0.0; BLOCK]; ROWS];
    for first in tile.columns().step_by(BLOCK) {
        let (lines, bias) = packed.block(first / BLOCK);
        for start in tile.rows().step_by(ROWS) {
            let rows = start..tile.rows().end.min(start + ROWS);
            let mut activations: [&[f32]; ROWS] = [&[]; ROWS];
            for (activations, row) in activations.iter_mut().zip(rows.clone()) {
                *activations = &x[row * k..(row + 1) * k];
            }
            kernels.sums_f32(&activations[..rows.len()], lines, &mut sums);
            for (row, sums) in rows.zip(&sums) {
                write_row(&mut tile, row, first, |out| {
                    for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
                        *out = sum + bias;
                    }
                });
            }
        }
    }
}

/// Lets `write` fill a block's outputs of one row, in place where the block is whole.
fn write_row(tile: &mut TileMut<'_, f32>, row: usize, first: usize, write: impl FnOnce(&mut [f32; BLOCK])) {
    let end = tile.columns().end.min(first + BLOCK);
    let out = tile.row_mut(row, first..end);
    if let Ok(whole) = out.try_into() {
        return write(whole);
    }
    let mut whole = [0.0; BLOCK];
    write(&mut whole);
    let out = tile.row_mut(row, first..end);
    out.copy_from_slice(&whole[..end - first]);
}
