//! One call of the op: quantise the rows, cut the output into tiles, run the micro-kernels over them.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::thread::LocalKey;

use bytemuck::Pod;

use super::activation::Epilogue;
use super::blocks::{Activations, PackedSteps, SPAN};
use super::finish::Ending;
use super::float::Float;
use super::isa::{AMX_ROWS, Kernels, ROWS, STEP_ROWS};
use super::pack::{BLOCK, GROUP, Packed, PackedFloats, PackedI8, Sums};
use super::quantise::{Group, RowLayout};
use super::rows::{Columns, Rows};
use super::weights::{ActivationBits, LinearShape};
use crate::kernels::pool::{ComputePool, TileGrid, TileMut};

/// Weights that make a chunk worth a thread's while: some microseconds of reading or multiplying.
const CHUNK_WORK: usize = 1 << 17;
/// Bytes of activations that a tile covers, about, so that they stay in the second-level cache while weights stream by: each
/// further row of tiles reads all weights again.
const TILE_BYTES: usize = 1 << 20;
/// Rows that weights in blocks meet in turn: what a step of them reads and writes stays in the nearest cache.
const PANEL: usize = 8 * STEP_ROWS;
/// Rows of weights in blocks that a thread quantises side by side, at least: whole cache lines of records.
const QUANTISED_ROWS: usize = 16;
/// Activations below which one thread quantises them all.
const QUANTISE_ALONE: usize = 1 << 14;

thread_local! {
    /// Quantised rows, kept from call to call.
    static RECORDS: Cell<Vec<Group>> = const { Cell::new(Vec::new()) };
    /// The same for weights in blocks.
    static BLOCKS: Cell<Vec<Activations<1>>> = const { Cell::new(Vec::new()) };
    static FINE_BLOCKS: Cell<Vec<Activations<2>>> = const { Cell::new(Vec::new()) };
}

/// How activations of `P` bytes meet weights in blocks.
#[derive(Clone, Copy)]
struct Steps<S, const P: usize> {
    /// Scaled sums over k of some rows with a block of outputs, see [`Kernels::sums_blocks`].
    kernel: fn(Kernels, Columns<'_, Activations<P>>, &[S], &mut [Sums]),
    /// Where quantised rows are kept from call to call.
    records: &'static LocalKey<Cell<Vec<Activations<P>>>>,
}

/// A linear map as one call sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) packed: &'a Packed,
    /// Outputs after the epilogue, and inputs.
    pub(super) shape: LinearShape,
    pub(super) epilogue: Epilogue,
    /// What the outputs are added to, (rows, n).
    pub(super) onto: Option<&'a [f32]>,
    pub(super) kernels: Kernels,
    pub(super) pool: &'a ComputePool,
}

impl Call<'_> {
    /// `x` (rows, k) to (rows, n).
    pub(super) fn forward(self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.shape.k;
        match self.packed {
            Packed::F32(packed) => self.floats(packed, x),
            Packed::F16(packed) => self.floats(packed, x),
            Packed::Bf16(packed) => self.floats(packed, x),
            Packed::I8(packed) => {
                let layout = RowLayout::new(self.shape.k, packed.activations);
                let grid = self.grid(
                    rows,
                    self.kernels.rows_i8() / packed.activations.planes(),
                    GROUP * layout.record(),
                );
                with_records(&RECORDS, Group::default(), rows * layout.record(), |records| {
                    self.quantise(layout, x, records);
                    // SAFETY: `tile_i8` writes each row of each block of outputs that lies in its tile.
                    unsafe {
                        self.pool.fill_tiles(grid, |tile| match self.kernels.rows_i8() {
                            AMX_ROWS => self.tile_i8::<AMX_ROWS>(packed, layout, records, tile),
                            _ => self.tile_i8::<ROWS>(packed, layout, records, tile),
                        })
                    }
                })
            }
            Packed::Blocks(packed) => match packed.activations {
                ActivationBits::Eight => {
                    self.steps(packed, x, Steps { kernel: Kernels::sums_blocks, records: &BLOCKS })
                }
                ActivationBits::Fifteen => {
                    self.steps(packed, x, Steps { kernel: Kernels::sums_blocks, records: &FINE_BLOCKS })
                }
            },
            Packed::Nibbles(packed) => match packed.activations {
                ActivationBits::Eight => {
                    self.steps(packed, x, Steps { kernel: Kernels::sums_nibbles, records: &BLOCKS })
                }
                ActivationBits::Fifteen => {
                    self.steps(packed, x, Steps { kernel: Kernels::sums_nibbles, records: &FINE_BLOCKS })
                }
            },
        }
    }

    /// `x` (rows, k) to (rows, n) by weights in floats.
    fn floats<F: Float>(self, packed: &PackedFloats<F>, x: &[f32]) -> Vec<f32> {
        let grid = self.grid(x.len() / self.shape.k, ROWS, size_of::<f32>() * self.shape.k);
        // SAFETY: `tile_floats` writes each row of each block of outputs that lies in its tile.
        unsafe { self.pool.fill_tiles(grid, |tile| self.tile_floats(packed, x, tile)) }
    }

    /// `x` (rows, k) to (rows, n) by weights in blocks.
    fn steps<S: Pod + Sync, const P: usize>(
        self,
        packed: &PackedSteps<S>,
        x: &[f32],
        steps: Steps<S, P>,
    ) -> Vec<f32> {
        let (rows, len) = (x.len() / self.shape.k, self.shape.k.div_ceil(SPAN));
        let grid = self.grid(rows, self.kernels.rows_steps(), len * size_of::<Activations<P>>());
        with_records(steps.records, Activations::ZERO, rows * len, |records| {
            self.quantise_steps(rows, x, records);
            // SAFETY: `tile_steps` writes each row of each block of outputs that lies in its tile.
            unsafe { self.pool.fill_tiles(grid, |tile| self.tile_steps(packed, records, steps, tile)) }
        })
    }

    /// How to cut the output: tiles of about [`TILE_BYTES`] of activations, `row_bytes` a row, several for a thread where there is
    /// work for them. Their heights are multiples of `unit`.
    fn grid(self, rows: usize, unit: usize, row_bytes: usize) -> TileGrid {
        let blocks = self.packed.blocks();
        let work = rows.saturating_mul(blocks * BLOCK).saturating_mul(self.shape.k);
        let threads = self.pool.threads();
        let wanted = if threads == 1 { 1 } else { (work / CHUNK_WORK).clamp(1, 4 * threads) };
        let down = rows.saturating_mul(row_bytes).div_ceil(TILE_BYTES).max(wanted.div_ceil(blocks));
        let across = wanted.div_ceil(down).min(blocks);
        TileGrid {
            rows,
            columns: self.shape.n,
            tile_rows: rows.div_ceil(down).next_multiple_of(unit).max(unit),
            tile_columns: blocks.div_ceil(across) * self.epilogue.block_outputs(),
        }
    }

    /// Quantises all rows into `records`.
    fn quantise(self, layout: RowLayout, x: &[f32], records: &mut [Group]) {
        let k = self.shape.k;
        let columns = layout.record();
        let tile_rows = (QUANTISE_ALONE / k).max(1);
        let grid = TileGrid { rows: x.len() / k, columns, tile_rows, tile_columns: columns };
        self.pool.for_each_tile(records, grid, |mut tile| {
            for row in tile.rows() {
                let record = tile.row_mut(row, 0..columns);
                self.kernels.quantise_row(&x[row * k..(row + 1) * k], layout.bits, record);
            }
        });
    }

    /// Quantises all rows into `records` (k / 32, rows).
    fn quantise_steps<const P: usize>(self, rows: usize, x: &[f32], records: &mut [Activations<P>]) {
        let k = self.shape.k;
        // Few rows of many inputs are cut by steps: rows beside each other share cache lines, which threads should not.
        let tile_columns = (QUANTISE_ALONE / k).max(QUANTISED_ROWS).min(rows.max(1));
        let tile_rows = (QUANTISE_ALONE / (SPAN * tile_columns)).max(1);
        let grid = TileGrid { rows: k.div_ceil(SPAN), columns: rows, tile_rows, tile_columns };
        self.pool.for_each_tile(records, grid, |mut tile| {
            let rows = Rows::packed(x, k, tile.columns());
            for step in tile.rows() {
                self.kernels.quantise_step(rows, step, tile.row_mut(step, tile.columns()));
            }
        });
    }

    /// One tile of outputs from weights in blocks.
    fn tile_steps<S: Pod, const P: usize>(
        self,
        packed: &PackedSteps<S>,
        records: &[Activations<P>],
        steps: Steps<S, P>,
        mut tile: TileMut<'_, MaybeUninit<f32>>,
    ) {
        let rows = records.len() / self.shape.k.div_ceil(SPAN);
        let mut sums = [Sums::ZERO; PANEL];
        for first in tile.columns().step_by(self.epilogue.block_outputs()) {
            let (weights, bias) = packed.block(first / self.epilogue.block_outputs());
            for start in tile.rows().step_by(PANEL) {
                let panel = start..tile.rows().end.min(start + PANEL);
                (steps.kernel)(self.kernels, Columns::new(records, rows, panel.clone()), weights, &mut sums);
                self.finish(bias, first, &mut sums, panel, &mut tile);
            }
        }
    }

    /// One tile of outputs from int8 products, R rows at a time.
    fn tile_i8<const R: usize>(
        self,
        packed: &PackedI8,
        layout: RowLayout,
        records: &[Group],
        mut tile: TileMut<'_, MaybeUninit<f32>>,
    ) {
        let planes = layout.bits.planes();
        let (mut products, mut sums) = ([[0; BLOCK]; R], [Sums::ZERO; R]);
        for first in tile.columns().step_by(self.epilogue.block_outputs()) {
            let block = first / self.epilogue.block_outputs();
            let (lines, columns) = packed.block(block);
            // Each pass over this block has a part of the next one fetched, for memory would stand idle in all passes but the first.
            let passes = tile.rows().len().div_ceil(R / planes);
            let last = first + self.epilogue.block_outputs() >= tile.columns().end;
            let ahead = if last { &[] } else { packed.next(block) };
            let mut ahead = ahead.chunks(lines.len().div_ceil(passes));
            for rows in even(tile.rows(), R / planes) {
                let next = ahead.next().unwrap_or_default();
                self.kernels.sums_i8(layout.planes(records, rows.clone()), lines, next, &mut products);
                let products = products.chunks_exact(planes);
                for (row, (products, sums)) in rows.clone().zip(products.zip(&mut sums)) {
                    self.kernels.scale_i8(products, columns, layout.scale(records, row), sums);
                }
                self.finish(&columns.bias, first, &mut sums, rows, &mut tile);
            }
        }
    }

    /// One tile of outputs from products in f32.
    fn tile_floats<F: Float>(
        self,
        packed: &PackedFloats<F>,
        x: &[f32],
        mut tile: TileMut<'_, MaybeUninit<f32>>,
    ) {
        let k = self.shape.k;
        let mut sums = [Sums::ZERO; ROWS];
        for first in tile.columns().step_by(self.epilogue.block_outputs()) {
            let (weights, bias) = packed.block(first / self.epilogue.block_outputs());
            for rows in even(tile.rows(), ROWS) {
                self.kernels.sums_floats(Rows::packed(x, k, rows.clone()), weights, &mut sums);
                self.finish(bias, first, &mut sums, rows, &mut tile);
            }
        }
    }

    /// Finishes the sums of `rows` with the block of outputs that starts at `first`.
    fn finish(
        self,
        bias: &[f32; BLOCK],
        first: usize,
        sums: &mut [Sums],
        rows: Range<usize>,
        tile: &mut TileMut<'_, MaybeUninit<f32>>,
    ) {
        let ending = Ending { bias, epilogue: self.epilogue, n: self.shape.n, onto: self.onto, first };
        self.kernels.finish(&ending, sums, rows, tile);
    }
}

/// Lends `work` the first `len` of the records that a thread keeps. What an earlier call left in them is overwritten whole.
fn with_records<T: Copy, R>(
    kept: &'static LocalKey<Cell<Vec<T>>>,
    empty: T,
    len: usize,
    work: impl FnOnce(&mut [T]) -> R,
) -> R {
    let mut records = kept.take();
    if records.len() < len {
        records.resize(len, empty);
    }
    let result = work(&mut records[..len]);
    kept.set(records);
    result
}

/// Cuts `rows` into as few parts of at most `most` as it takes, nearly equal ones: a micro-kernel of few rows waits for
/// loads, so 8 rows are better done as 4 and 4 than as 6 and 2.
fn even(rows: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = rows.len().div_ceil(most);
    let step = rows.len().div_ceil(parts.max(1)).max(1);
    rows.clone().step_by(step).map(move |start| start..rows.end.min(start + step))
}
