//! The kernels in plain Rust, compiled for whatever vectors their caller has.
#![forbid(unsafe_code)]

use super::{
    cpu::{KEYS, PAIR, WeighedSum},
    numbers::Numbers,
    row_starts::RowStarts,
};
use crate::kernels::simd;

/// The dot products of at most [`PAIR`] queries with the keys in `rows` of `keys`.
#[inline(always)]
pub(super) fn scores(queries: &[&[f32]], keys: Numbers<'_>, rows: RowStarts<'_>) -> [[f32; KEYS]; PAIR] {
    match keys {
        Numbers::F32(keys) => scores_of(queries, keys, rows),
        Numbers::F16(keys) => scores_of(queries, keys, rows),
    }
}

#[inline(always)]
fn scores_of<T: Copy + Into<f32>>(
    queries: &[&[f32]],
    keys: &[T],
    rows: RowStarts<'_>,
) -> [[f32; KEYS]; PAIR] {
    let mut scores = [[0.0; KEYS]; PAIR];
    for (q, scores) in queries.iter().zip(&mut scores) {
        for (score, &start) in scores.iter_mut().zip(rows.starts()) {
            *score = simd::dot(q, &keys[start..start + q.len()]);
        }
    }
    scores
}

/// Adds weighed values to `sums` `(queries, dim)`.
#[inline(always)]
pub(super) fn weigh(call: &WeighedSum<'_>, sums: &mut [f32]) {
    match call.values {
        Numbers::F32(values) => weigh_of(call, values, sums),
        Numbers::F16(values) => weigh_of(call, values, sums),
    }
}

#[inline(always)]
fn weigh_of<T: Copy + Into<f32>>(call: &WeighedSum<'_>, values: &[T], sums: &mut [f32]) {
    /// Columns that stay in registers while the keys run.
    const STRIP: usize = 64;
    for (query, sums) in sums.chunks_exact_mut(call.dim).enumerate() {
        let weights = &call.weights[query * call.stride..];
        for (strip, out) in sums.chunks_mut(STRIP).enumerate() {
            let mut sums = [0f32; STRIP];
            let sums = &mut sums[..out.len()];
            sums.copy_from_slice(out);
            for (&weight, &start) in weights.iter().zip(call.rows.starts()) {
                let values = &values[start + strip * STRIP..][..sums.len()];
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = weight.mul_add((*value).into(), *sum);
                }
            }
            out.copy_from_slice(sums);
        }
    }
}
