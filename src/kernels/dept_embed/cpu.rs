//! The parallel version: rows are independent, and a row's sum over the rank runs in order, so that neither the batch nor
//! the number of threads changes a bit.

use super::{AdapterSlot, EmbeddingTable, LowRankSlot, Row, RowTable};
use crate::kernels::{
    pool::{ComputePool, TileGrid},
    simd,
};

/// Rows a task: enough work (about 50 microseconds at rank 50) to be worth a hand-over.
const ROWS_A_TASK: usize = 8;

/// Embeds checked packed rows `(rows, 3)` into `out` `(rows, d)`.
pub(super) fn embed(
    table: &EmbeddingTable,
    slots: &[AdapterSlot<'_>],
    rows: &[u32],
    out: &mut [f32],
    pool: &ComputePool,
) {
    let hidden = table.hidden();
    let grid = TileGrid {
        rows: rows.len() / RowTable::WORDS,
        columns: hidden,
        tile_rows: ROWS_A_TASK,
        tile_columns: hidden,
    };
    pool.for_each_tile(out, grid, |mut tile| {
        for row in tile.rows() {
            let out = tile.row_mut(row, 0..hidden);
            match RowTable::unpack(&rows[row * RowTable::WORDS..][..RowTable::WORDS]) {
                Row::Prompt { slot, index } => {
                    let start = index as usize * hidden;
                    out.copy_from_slice(&slots[slot as usize].prompt[start..start + hidden]);
                }
                Row::Token { token, delta } => {
                    table.copy_row(token as usize, out);
                    let pair = delta.and_then(|delta| Some((delta, slots[delta.slot as usize].low_rank?)));
                    if let Some((delta, pair)) = pair {
                        let a = &pair.a[delta.index as usize * pair.rank..][..pair.rank];
                        simd::widest!(add_update(out: &mut [f32], a: &[f32], pair: LowRankSlot<'_>));
                    }
                }
            }
        }
    });
}

/// `out += scale * a . B`, columns in strips that stay in registers while the rank runs.
#[inline(always)]
fn add_update(out: &mut [f32], a: &[f32], pair: LowRankSlot<'_>) {
    const STRIP: usize = 64;
    let hidden = out.len();
    let whole = hidden - hidden % STRIP;
    for start in (0..whole).step_by(STRIP) {
        let mut sums = [0f32; STRIP];
        for (&a, b) in a.iter().zip(pair.b.chunks_exact(hidden)) {
            let b: &[f32; STRIP] = b[start..start + STRIP].try_into().expect("a strip is STRIP wide");
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = a.mul_add(*b, *sum);
            }
        }
        for (out, sum) in out[start..start + STRIP].iter_mut().zip(sums) {
            *out = pair.scale.mul_add(sum, *out);
        }
    }
    for (column, out) in out.iter_mut().enumerate().skip(whole) {
        let sum =
            a.iter().zip(pair.b.chunks_exact(hidden)).fold(0.0, |sum, (a, b)| a.mul_add(b[column], sum));
        *out = pair.scale.mul_add(sum, *out);
    }
}
