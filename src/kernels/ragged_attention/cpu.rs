//! The parallel version: a task is one head of a few query rows.

use std::{cell::RefCell, ops::Range};

use super::{Attention, RelativeBias, Span};
use crate::kernels::{pool::TileGrid, simd};

/// Query rows a task: neighbouring rows read the same keys, which then are in the cache.
const ROWS_A_TASK: usize = 16;

thread_local! {
    /// One row of scores, kept between calls.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A part of the columns of a matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub offset: usize,
}

impl<'a> Rows<'a> {
    /// Columns `[start, start + count)` of this part, in row `row`.
    #[inline(always)]
    fn part(&self, row: usize, start: usize, count: usize) -> &'a [f32] {
        let first = row * self.stride + self.offset + start;
        &self.values[first..first + count]
    }
}

/// Keys and values, row by row.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyValues<'a> {
    pub keys: Rows<'a>,
    pub values: Rows<'a>,
}

impl KeyValues<'_> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.keys.values.len() / self.keys.stride
    }
}

/// One query row of one head, and what it reads.
struct Query<'a> {
    q: &'a [f32],
    span: &'a Span<'a>,
    kv: KeyValues<'a>,
    kv_start: usize,
    scale: f32,
    bias: Option<&'a [f32]>,
    visible: Range<usize>,
}

impl Query<'_> {
    /// The runs of key rows that it sees, as (first row, its scores).
    #[inline(always)]
    fn runs(&self) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let mut start = 0;
        self.span.keys.runs(self.visible.clone()).map(move |(first, length)| {
            let scores = start..start + length;
            start = scores.end;
            (first, scores)
        })
    }
}

/// Attention of checked spans. `out` is `(rows, heads * dim)`.
pub(super) fn attend(attention: &Attention<'_>, q: Rows<'_>, kv: KeyValues<'_>, out: &mut [f32]) {
    let heads = attention.heads;
    let grid = TileGrid {
        rows: out.len() / heads.query_width(),
        columns: heads.query_width(),
        tile_rows: ROWS_A_TASK,
        tile_columns: heads.dim,
    };
    attention.pool.for_each_tile(out, grid, |mut tile| {
        let columns = tile.columns();
        let head = columns.start / heads.dim;
        let kv_start = head * heads.kv_heads / heads.heads * heads.dim;
        let first = tile.rows().start;
        let mut spans = attention.spans.iter().skip_while(|span| span.queries.end <= first).peekable();
        SCORES.with_borrow_mut(|scores| {
            for row in tile.rows() {
                while spans.next_if(|span| span.queries.end <= row).is_some() {}
                let Some(span) = spans.peek() else { return };
                let visible = span.visible(row, attention.window);
                let bias = attention
                    .bias
                    .map(|bias: &RelativeBias| bias.row(head, span.position(row), visible.clone()));
                let q = q.part(row, columns.start, heads.dim);
                scores.resize(visible.len(), 0.0);
                let query = &Query { q, span, kv, kv_start, scale: attention.scale, bias, visible };
                let (scores, out) = (&mut scores[..], tile.row_mut(row, columns.clone()));
                simd::widest!(attend_row(query: &Query<'_>, scores: &mut [f32], out: &mut [f32]));
            }
        });
    });
}

/// `softmax(scale * q . K + bias) . V`, keys in order of position. `scores` has room for every visible key.
#[inline(always)]
fn attend_row(query: &Query<'_>, scores: &mut [f32], out: &mut [f32]) {
    let dim = query.q.len();
    for (first, run) in query.runs() {
        for (row, score) in (first..).zip(&mut scores[run]) {
            *score = query.scale * simd::dot(query.q, query.kv.keys.part(row, query.kv_start, dim));
        }
    }
    for (score, bias) in scores.iter_mut().zip(query.bias.unwrap_or(&[])) {
        *score += bias;
    }
    let largest = simd::max(scores);
    for score in &mut *scores {
        *score = simd::exp(*score - largest);
    }
    // A row without keys has a sum of 0 and stays 0.
    let total = simd::sum(scores);
    let share = if total > 0.0 { 1.0 / total } else { 0.0 };
    for (strip, out) in out.chunks_mut(STRIP).enumerate() {
        weigh_values(query, scores, strip * STRIP, share, out);
    }
}

/// Columns of the output that stay in registers while the keys run.
const STRIP: usize = 64;

/// `out = share * scores . V[:, start..]`
#[inline(always)]
fn weigh_values(query: &Query<'_>, scores: &[f32], start: usize, share: f32, out: &mut [f32]) {
    let mut sums = [0f32; STRIP];
    let sums = &mut sums[..out.len()];
    for (first, run) in query.runs() {
        for (row, &weight) in (first..).zip(&scores[run]) {
            let values = query.kv.values.part(row, query.kv_start + start, sums.len());
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = weight.mul_add(*value, *sum);
            }
        }
    }
    for (out, sum) in out.iter_mut().zip(&*sums) {
        *out = share * sum;
    }
}
