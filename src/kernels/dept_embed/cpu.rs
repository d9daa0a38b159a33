//! The parallel version: rows are independent, and a row's sum over the rank runs in order, so that neither the batch nor
//! the number of threads changes a bit.

use super::{AdapterSlot, AdeptSlot, EmbeddingTable, LowRankSlot, Row, RowTable, UpdateSlot};
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
        let mut units = Vec::new(); // (r), allocated by the first row that needs it
        for row in tile.rows() {
            let out = tile.row_mut(row, 0..hidden);
            match RowTable::unpack(&rows[row * RowTable::WORDS..][..RowTable::WORDS]) {
                Row::Prompt { slot, index } => {
                    let start = index as usize * hidden;
                    out.copy_from_slice(&slots[slot as usize].prompt[start..start + hidden]);
                }
                Row::Token { token, delta } => {
                    table.copy_row(token as usize, out);
                    let Some(delta) = delta else { continue };
                    match slots[delta.slot as usize].update {
                        UpdateSlot::None => {}
                        UpdateSlot::LowRank(pair) => {
                            let a = &pair.a[delta.index as usize * pair.rank..][..pair.rank];
                            simd::widest!(add_update(out: &mut [f32], a: &[f32], pair: LowRankSlot<'_>));
                        }
                        UpdateSlot::Adept(network) => {
                            let units = &mut units;
                            simd::widest!(add_network(out: &mut [f32], units: &mut Vec<f32>, network: AdeptSlot<'_>));
                        }
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

/// `out += ReLU(out . a + bias_a) . b + bias_b`; `units` is memory for the r numbers between.
#[inline(always)]
fn add_network(out: &mut [f32], units: &mut Vec<f32>, network: AdeptSlot<'_>) {
    units.clear();
    units.extend_from_slice(network.bias_a);
    add_product(units, out, network.a);
    units.iter_mut().for_each(|unit| *unit = unit.max(0.0));
    out.iter_mut().zip(network.bias_b).for_each(|(out, bias)| *out += bias);
    add_product(out, units, network.b);
}

/// `out += x . matrix`, `(k) . (k, n)`, in strips like [`add_update`]'s.
#[inline(always)]
fn add_product(out: &mut [f32], x: &[f32], matrix: &[f32]) {
    const STRIP: usize = 32;
    let width = out.len();
    let whole = width - width % STRIP;
    for start in (0..whole).step_by(STRIP) {
        let mut sums = [0f32; STRIP];
        for (&x, row) in x.iter().zip(matrix.chunks_exact(width)) {
            let row: &[f32; STRIP] = row[start..start + STRIP].try_into().expect("a strip is STRIP wide");
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum = x.mul_add(*value, *sum);
            }
        }
        out[start..start + STRIP].iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
    }
    for (column, out) in out.iter_mut().enumerate().skip(whole) {
        *out +=
            x.iter().zip(matrix.chunks_exact(width)).fold(0.0, |sum, (x, row)| x.mul_add(row[column], sum));
    }
}
