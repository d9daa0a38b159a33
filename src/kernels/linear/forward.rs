//! One call of the op: quantise the rows, cut the output into tiles, run the micro-kernels over them.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::thread::LocalKey;

use super::activation::Epilogue;
use super::blocks::{Activations, PackedSteps, SPAN};
use super::isa::{BLOCK_ROWS, BLOCK_ROWS_FINE, Kernels, ROWS};
use super::pack::{BLOCK, Packed, PackedF32, PackedI8};
use super::quantise::{Group, RowLayout};
use super::rows::Rows;
use super::weights::{ActivationBits, LinearShape};
use crate::kernels::pool::{ComputePool, TileGrid, TileMut};

/// Weights that make a chunk worth a thread's while: some microseconds of reading or multiplying.
const CHUNK_WORK: usize = 1 << 17;
/// Rows that a tile covers at most, so that their activations stay in the second-level cache beside the weights.
const TILE_ROWS: usize = 32 * ROWS;
/// Activations below which one thread quantises them all.
const QUANTISE_ALONE: usize = 1 << 14;

thread_local! {
    /// Quantised rows, kept from call to call.
    static RECORDS: Cell<Vec<Group>> = const { Cell::new(Vec::new()) };
    /// The same for weights in blocks.
    static BLOCKS: Cell<Vec<Activations<1>>> = const { Cell::new(Vec::new()) };
    static FINE_BLOCKS: Cell<Vec<Activations<2>>> = const { Cell::new(Vec::new()) };
}

/// Scaled sums over k of some rows with a block of outputs, see [`Kernels::sums_blocks`].
type StepKernel<S, const P: usize> =
    fn(Kernels, Rows<'_, Activations<P>>, &[S], &mut [[f32; BLOCK]; BLOCK_ROWS]);

/// How activations of `P` bytes meet weights in blocks.
#[derive(Clone, Copy)]
struct Steps<S, const P: usize> {
    kernel: StepKernel<S, P>,
    /// Rows that it takes at once.
    rows: usize,
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
        let grid = self.grid(x.len() / self.shape.k);
        match self.packed {
            // SAFETY: `tile_f32` writes each row of each block of outputs that lies in its tile.
            Packed::F32(packed) => unsafe {
                self.pool.fill_tiles(grid, |tile| self.tile_f32(packed, x, tile))
            },
            Packed::I8(packed) => {
                let layout = RowLayout::new(self.shape.k, packed.activations);
                let mut records = RECORDS.take();
                // Whatever an earlier call left is overwritten whole.
                records.resize(grid.rows * layout.record(), Group::default());
                self.quantise(layout, x, &mut records);
                // SAFETY: as above, and so does `tile_i8`.
                let out = unsafe {
                    self.pool.fill_tiles(grid, |tile| self.tile_i8(packed, layout, &records, tile))
                };
                RECORDS.set(records);
                out
            }
            Packed::Blocks(packed) => match packed.activations {
                ActivationBits::Eight => self.steps(packed, x, eight(Kernels::sums_blocks)),
                ActivationBits::Fifteen => self.steps(packed, x, fifteen(Kernels::sums_blocks)),
            },
            Packed::Nibbles(packed) => match packed.activations {
                ActivationBits::Eight => self.steps(packed, x, eight(Kernels::sums_nibbles)),
                ActivationBits::Fifteen => self.steps(packed, x, fifteen(Kernels::sums_nibbles)),
            },
        }
    }

    /// `x` (rows, k) to (rows, n) by weights in blocks.
    fn steps<S: Copy + Sync, const P: usize>(
        self,
        packed: &PackedSteps<S>,
        x: &[f32],
        steps: Steps<S, P>,
    ) -> Vec<f32> {
        let grid = self.grid(x.len() / self.shape.k);
        let len = self.shape.k.div_ceil(SPAN);
        let mut records = steps.records.take();
        records.resize(grid.rows * len, Activations::ZERO);
        self.quantise_blocks(len, x, &mut records);
        // SAFETY: `tile_steps` writes each row of each block of outputs that lies in its tile.
        let out =
            unsafe { self.pool.fill_tiles(grid, |tile| self.tile_steps(packed, &records, steps, tile)) };
        steps.records.set(records);
        out
    }

    /// How to cut the output: tiles of at most [`TILE_ROWS`] rows, several for a thread where there is work for them.
    fn grid(self, rows: usize) -> TileGrid {
        let blocks = self.packed.blocks();
        let work = rows.saturating_mul(blocks * BLOCK).saturating_mul(self.shape.k);
        let threads = self.pool.threads();
        let wanted = if threads == 1 { 1 } else { (work / CHUNK_WORK).clamp(1, 4 * threads) };
        let down = rows.div_ceil(TILE_ROWS).max(wanted.div_ceil(blocks));
        let across = wanted.div_ceil(down).min(blocks);
        TileGrid {
            rows,
            columns: self.shape.n,
            tile_rows: rows.div_ceil(down).next_multiple_of(ROWS).max(ROWS),
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

    /// Quantises all rows into `records` of `len` blocks each.
    fn quantise_blocks<const P: usize>(self, len: usize, x: &[f32], records: &mut [Activations<P>]) {
        let k = self.shape.k;
        let tile_rows = (QUANTISE_ALONE / k).max(1);
        let grid = TileGrid { rows: x.len() / k, columns: len, tile_rows, tile_columns: len };
        self.pool.for_each_tile(records, grid, |mut tile| {
            for row in tile.rows() {
                self.kernels.quantise_blocks(&x[row * k..(row + 1) * k], tile.row_mut(row, 0..len));
            }
        });
    }

    /// One tile of outputs from weights in blocks.
    fn tile_steps<S: Copy, const P: usize>(
        self,
        packed: &PackedSteps<S>,
        records: &[Activations<P>],
        steps: Steps<S, P>,
        mut tile: TileMut<'_, MaybeUninit<f32>>,
    ) {
        let len = self.shape.k.div_ceil(SPAN);
        let mut sums = [[0.0; BLOCK]; BLOCK_ROWS];
        for first in tile.columns().step_by(self.epilogue.block_outputs()) {
            let (weights, bias) = packed.block(first / self.epilogue.block_outputs());
            for rows in even(tile.rows(), steps.rows) {
                (steps.kernel)(self.kernels, Rows::packed(records, len, rows.clone()), weights, &mut sums);
                for (row, sums) in rows.zip(&sums) {
                    self.write_row(&mut tile, row, first, |out| self.kernels.add(sums, bias, out));
                }
            }
        }
    }

    /// One tile of outputs from int8 products.
    fn tile_i8(
        self,
        packed: &PackedI8,
        layout: RowLayout,
        records: &[Group],
        mut tile: TileMut<'_, MaybeUninit<f32>>,
    ) {
        let planes = layout.bits.planes();
        let mut sums = [[0; BLOCK]; ROWS];
        for first in tile.columns().step_by(self.epilogue.block_outputs()) {
            let (lines, columns) = packed.block(first / self.epilogue.block_outputs());
            for rows in even(tile.rows(), ROWS / planes) {
                self.kernels.sums_i8(layout.planes(records, rows.clone()), lines, &mut sums);
                for (row, sums) in rows.zip(sums.chunks_exact(planes)) {
                    let scale = layout.scale(records, row);
                    self.write_row(&mut tile, row, first, |out| {
                        self.kernels.scale_i8(sums, columns, scale, out)
                    });
                }
            }
        }
    }

    /// One tile of outputs from f32 products.
    fn tile_f32(self, packed: &PackedF32, x: &[f32], mut tile: TileMut<'_, MaybeUninit<f32>>) {
        let k = self.shape.k;
        let mut sums = [[0.0; BLOCK]; ROWS];
        for first in tile.columns().step_by(self.epilogue.block_outputs()) {
            let (lines, bias) = packed.block(first / self.epilogue.block_outputs());
            for rows in even(tile.rows(), ROWS) {
                self.kernels.sums_f32(Rows::packed(x, k, rows.clone()), lines, &mut sums);
                for (row, sums) in rows.zip(&sums) {
                    self.write_row(&mut tile, row, first, |out| self.kernels.add(sums, bias, out));
                }
            }
        }
    }

    /// Lets `fill` make a block of one row, which it writes whole, finishes it, and leaves it at the output's column `first`; in
    /// place where the block is whole and nothing more happens to it.
    fn write_row(
        self,
        tile: &mut TileMut<'_, MaybeUninit<f32>>,
        row: usize,
        first: usize,
        fill: impl FnOnce(&mut [MaybeUninit<f32>; BLOCK]),
    ) {
        let end = tile.columns().end.min(first + self.epilogue.block_outputs());
        let out = tile.row_mut(row, first..end);
        if self.epilogue == Epilogue::Plain
            && self.onto.is_none()
            && let Some(whole) = out.first_chunk_mut()
        {
            return fill(whole);
        }
        let mut block = [MaybeUninit::new(0.0); BLOCK];
        fill(&mut block);
        // SAFETY: every number was set when the block was made.
        let mut block = block.map(|number| unsafe { number.assume_init() });
        self.kernels.finish(self.epilogue, &mut block);
        let Some(onto) = self.onto else {
            for (out, number) in out.iter_mut().zip(block) {
                out.write(number);
            }
            return;
        };
        let onto = &onto[row * self.shape.n..][first..end];
        if let (Some(onto), Some(out)) = (onto.first_chunk(), out.first_chunk_mut()) {
            return self.kernels.add(onto, &block, out);
        }
        for ((out, onto), number) in out.iter_mut().zip(onto).zip(block) {
            out.write(onto + number);
        }
    }
}

fn eight<S>(kernel: StepKernel<S, 1>) -> Steps<S, 1> {
    Steps { kernel, rows: BLOCK_ROWS, records: &BLOCKS }
}

fn fifteen<S>(kernel: StepKernel<S, 2>) -> Steps<S, 2> {
    Steps { kernel, rows: BLOCK_ROWS_FINE, records: &FINE_BLOCKS }
}

/// Cuts `rows` into as few parts of at most `most` as it takes, nearly equal ones: a micro-kernel of few rows waits for
/// loads, so 8 rows are better done as 4 and 4 than as 6 and 2.
fn even(rows: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = rows.len().div_ceil(most);
    let step = rows.len().div_ceil(parts.max(1)).max(1);
    rows.clone().step_by(step).map(move |start| start..rows.end.min(start + step))
}
