//! One task: scores, weights and weighed values of some heads of a few neighbouring query rows of one sequence.
#![forbid(unsafe_code)]

use std::{mem::MaybeUninit, ops::Range};

use half::f16;

use super::{
    Attention, Span,
    cpu::{KEYS, KeyValues, PAIR, QUERIES, Rows, WeighedSum},
    numbers::{Numbers, Tile, Wide},
    row_starts::RowStarts,
};
use crate::kernels::{pool::TileMut, simd};

/// Keys whose values one head reads at a time: a few kilobytes.
const VALUES: usize = 64;

/// So many values are fetched while scores are made: rows hold keys and values in turns, and read so they come from memory in
/// one go. More would drive each other out of the second cache before they are needed.
const NEAR: usize = 1 << 17;

/// Keys, or values, that are fetched while those in front of them are worked on, where little is done with each. Without it a step
/// over f16 took 1.3 to 2.0 times as long where keys come from memory: benches/README.md.
const AHEAD: usize = 4 * KEYS;

/// Queries of a group that are few: they read f16 as it is, because to widen it once for all costs as much as in each.
const FEW: usize = 4;

/// The memory of a task.
#[derive(Debug)]
pub(super) struct Memory {
    /// Where the rows of the keys start, in order of position; whole tiles of [`KEYS`], the last row repeated.
    starts: Vec<usize>,
    /// Where the queries start.
    queries: Vec<usize>,
    /// What each query sees, counted from the first key that any of them sees.
    visible: Vec<Range<usize>>,
    /// Scores, then weights. `(queries, starts)`
    scores: Vec<f32>,
    /// Weighed sums of values. `(queries, dim)`
    sums: Vec<f32>,
    wide: Wide,
}

impl Memory {
    pub(super) const fn new() -> Memory {
        Memory {
            starts: Vec::new(),
            queries: Vec::new(),
            visible: Vec::new(),
            scores: Vec::new(),
            sums: Vec::new(),
            wide: Wide::new(),
        }
    }
}

/// One tile of the output, and what it reads. Its queries are numbered by group, then row, then head of the group.
pub(super) struct Task<'a> {
    pub(super) attention: &'a Attention<'a>,
    pub(super) span: &'a Span<'a>,
    pub(super) q: Rows<'a>,
    pub(super) kv: KeyValues<'a>,
    /// Its query rows.
    pub(super) rows: Range<usize>,
    /// Its key and value heads, each with its group of query heads.
    pub(super) groups: Range<usize>,
    /// Positions of the keys that any of its rows sees.
    pub(super) seen: Range<usize>,
    /// Whether the kernels read f16 about as fast as f32.
    pub(super) reads_f16: bool,
}

impl Task<'_> {
    /// `softmax(scale * q . K + bias) . V` for all queries. `widen` makes f32 of f16, `scores` dot products, and `weigh` adds
    /// weighed values.
    #[inline(always)]
    pub(super) fn run(
        &self,
        memory: &mut Memory,
        mut tile: TileMut<'_, MaybeUninit<f32>>,
        widen: impl Fn(&[f16], &mut [f32]),
        scores: impl Fn(&[&[f32]], Numbers<'_>, RowStarts<'_>) -> [[f32; KEYS]; PAIR],
        weigh: impl Fn(&WeighedSum<'_>, &mut [f32]),
    ) {
        self.find_rows(&mut memory.starts);
        self.find_queries(&mut memory.queries);
        self.find_visible(&mut memory.visible);
        let queries = self.rows.len() * self.group() * self.groups.len();
        memory.scores.resize(queries * memory.starts.len(), 0.0);
        memory.sums.clear();
        memory.sums.resize(queries * self.attention.heads.dim, 0.0);
        self.score(memory, &widen, scores);
        self.weigh(memory, &widen, weigh);
        for query in 0..queries {
            self.finish(memory, query, &mut tile);
        }
    }

    /// Query heads of a group.
    fn group(&self) -> usize {
        self.attention.heads.heads / self.attention.heads.kv_heads
    }

    /// Whether little is done with each key, so that its way from memory counts.
    fn few(&self) -> bool {
        self.rows.len() * self.group() <= FEW
    }

    /// Whether the values of `count` keys are fetched while scores are made.
    fn near(&self, count: usize) -> bool {
        self.few() && count * self.columns(0).len() <= NEAR
    }

    /// Asks for the keys, or the values, up to [`AHEAD`] behind number `next`. Those before `fetched` have been asked for.
    #[inline(always)]
    fn fetch(&self, rows: RowStarts<'_>, fetched: &mut usize, next: usize, offset: usize) {
        let end = (next + AHEAD).min(rows.starts().len());
        if end > *fetched {
            self.kv.numbers.prefetch(rows.part(*fetched..end), self.columns(offset));
            *fetched = end;
        }
    }

    /// The row and the head of a query.
    fn place(&self, query: usize) -> (usize, usize) {
        let by_row = query / self.group();
        let (group, row) = (by_row / self.rows.len(), by_row % self.rows.len());
        (self.rows.start + row, (self.groups.start + group) * self.group() + query % self.group())
    }

    /// The columns of its groups among those of the keys, or of the values, which begin at column `offset`.
    fn columns(&self, offset: usize) -> Range<usize> {
        let dim = self.attention.heads.dim;
        offset + self.groups.start * dim..offset + self.groups.end * dim
    }

    /// The columns of its groups in some rows of the keys, or of the values, which begin at column `offset`: as they are, or
    /// widened where that is worth it.
    #[inline(always)]
    fn tile<'t>(
        &'t self,
        wide: &'t mut Wide,
        rows: RowStarts<'t>,
        offset: usize,
        widen: impl Fn(&[f16], &mut [f32]),
    ) -> Tile<'t> {
        let columns = self.columns(offset);
        if self.reads_f16 && self.few() {
            Tile { numbers: self.kv.numbers.skip(columns.start), rows }
        } else {
            wide.rows(self.kv.numbers, rows, columns, widen)
        }
    }

    fn find_visible(&self, visible: &mut Vec<Range<usize>>) {
        visible.clear();
        for _ in self.groups.clone() {
            for row in self.rows.clone() {
                let seen = self.span.visible(row, self.attention.window);
                let seen = seen.start - self.seen.start..seen.end - self.seen.start;
                visible.extend(std::iter::repeat_n(seen, self.group()));
            }
        }
    }

    fn find_queries(&self, queries: &mut Vec<usize>) {
        queries.clear();
        let group_width = self.group() * self.attention.heads.dim;
        for kv_head in self.groups.clone() {
            for row in self.rows.clone() {
                let first = row * self.q.stride + self.q.offset + kv_head * group_width;
                queries.extend((first..first + group_width).step_by(self.attention.heads.dim));
            }
        }
    }

    fn find_rows(&self, starts: &mut Vec<usize>) {
        starts.clear();
        for (first, length) in self.span.keys.runs(self.seen.clone()) {
            starts.extend((first..first + length).map(|row| row * self.kv.stride));
        }
        let last = starts.last().copied().unwrap_or(0);
        starts.resize(starts.len().next_multiple_of(KEYS), last);
    }

    /// The scores of all queries, a tile of keys at a time: what a tile holds comes from memory once.
    #[inline(always)]
    fn score(
        &self,
        memory: &mut Memory,
        widen: impl Fn(&[f16], &mut [f32]),
        scores: impl Fn(&[&[f32]], Numbers<'_>, RowStarts<'_>) -> [[f32; KEYS]; PAIR],
    ) {
        let dim = self.attention.heads.dim;
        let (count, a_group) = (memory.starts.len(), self.rows.len() * self.group());
        let Memory { starts, queries, visible, scores: out, wide, .. } = memory;
        let q = |start: usize| &self.q.values[start..start + dim];
        let near = self.near(count);
        let all = RowStarts::new(starts);
        let mut fetched = 0;
        for first in (0..count).step_by(KEYS) {
            let rows = all.part(first..first + KEYS);
            if self.few() {
                self.fetch(all, &mut fetched, first + KEYS, self.kv.keys);
            }
            if near {
                self.kv.numbers.prefetch(rows, self.columns(self.kv.values));
            }
            let in_sight = |visible: &Range<usize>| visible.start < first + KEYS && visible.end > first;
            let Tile { numbers: keys, rows } = self.tile(wide, rows, self.kv.keys, &widen);
            let groups = queries.chunks(a_group).zip(visible.chunks(a_group));
            let groups = groups.zip(out.chunks_mut(a_group * count));
            for (group, ((queries, visible), out)) in groups.enumerate() {
                let keys = keys.skip(group * dim);
                let pairs = queries.chunks(PAIR).zip(visible.chunks(PAIR));
                for ((queries, visible), out) in pairs.zip(out.chunks_mut(PAIR * count)) {
                    if !visible.iter().any(in_sight) {
                        continue;
                    }
                    let found = match *queries {
                        [one] => scores(&[q(one)], keys, rows),
                        [one, other] => scores(&[q(one), q(other)], keys, rows),
                        _ => unreachable!("a chunk is one or two"),
                    };
                    for (out, found) in out.chunks_exact_mut(count).zip(found) {
                        let out = &mut out[first..first + KEYS];
                        out.copy_from_slice(&found.map(|dot| self.attention.scale * dot));
                    }
                }
            }
        }
    }

    /// Scores to weights, and these times values.
    #[inline(always)]
    fn weigh(
        &self,
        memory: &mut Memory,
        widen: impl Fn(&[f16], &mut [f32]),
        weigh: impl Fn(&WeighedSum<'_>, &mut [f32]),
    ) {
        let dim = self.attention.heads.dim;
        let count = memory.starts.len();
        for (query, scores) in memory.scores.chunks_exact_mut(count.max(1)).enumerate() {
            let (row, head) = self.place(query);
            self.to_weights(row, head, &mut scores[memory.visible[query].clone()]);
        }
        let a_group = self.rows.len() * self.group();
        let Memory { starts, visible, scores, sums, wide, .. } = memory;
        let all = RowStarts::new(starts);
        // Of all heads together as many as the nearest cache takes.
        let keys = if self.groups.len() == 1 { VALUES } else { KEYS };
        let far = self.few() && !self.near(count);
        let mut fetched = 0;
        for first in (0..count).step_by(keys) {
            let rows = all.part(first..count.min(first + keys));
            if far {
                self.fetch(all, &mut fetched, first + keys, self.kv.values);
            }
            let Tile { numbers: values, rows } = self.tile(wide, rows, self.kv.values, &widen);
            for (group, sums) in sums.chunks_exact_mut(a_group * dim).enumerate() {
                for (block, sums) in sums.chunks_mut(QUERIES * dim).enumerate() {
                    let query = group * a_group + block * QUERIES;
                    let sum = |query: usize, queries: usize, keys: Range<usize>| WeighedSum {
                        weights: &scores[query * count + keys.start..],
                        stride: count,
                        queries,
                        rows: rows.part(keys.start - first..keys.end - first),
                        values: values.skip(group * dim),
                        dim,
                    };
                    let visible = &visible[query..query + sums.len() / dim];
                    let visible =
                        |block: usize| visible[block].start.max(first)..visible[block].end.min(first + keys);
                    weigh_block((query, dim), sums, visible, |sums, query, queries, keys| {
                        weigh(&sum(query, queries, keys), sums);
                    });
                }
            }
        }
    }

    /// Turns a query's scores into weights that add up to something.
    #[inline(always)]
    fn to_weights(&self, row: usize, head: usize, scores: &mut [f32]) {
        if let Some(cap) = self.attention.soft_cap {
            scores.iter_mut().for_each(|score| *score = simd::soft_cap(*score, cap));
        }
        if let Some(bias) = self.attention.bias {
            let visible = self.span.visible(row, self.attention.window);
            let bias = bias.row(head, self.span.position(row), visible);
            scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
        }
        let largest = simd::max(scores);
        scores.iter_mut().for_each(|score| *score = simd::exp(*score - largest));
    }

    /// Divides a query's sums by its weights' sum, into its place.
    #[inline(always)]
    fn finish(&self, memory: &Memory, query: usize, tile: &mut TileMut<'_, MaybeUninit<f32>>) {
        let (row, head) = self.place(query);
        let (dim, count) = (self.attention.heads.dim, memory.starts.len());
        let weights = &memory.scores[query * count..(query + 1) * count][memory.visible[query].clone()];
        // A row without keys has a sum of 0 and stays 0.
        let total = simd::sum(weights);
        let share = if total > 0.0 { 1.0 / total } else { 0.0 };
        let sums = &memory.sums[query * dim..(query + 1) * dim];
        let out = tile.row_mut(row, head * dim..(head + 1) * dim);
        out.iter_mut().zip(sums).for_each(|(out, sum)| _ = out.write(share * sum));
    }
}

/// At most [`QUERIES`] queries from `query` on: together over the keys that all of them see, before and behind these one by
/// one, so that each adds its keys in order and none that it does not see. `visible` tells what the `i`-th sees.
#[inline(always)]
fn weigh_block(
    (query, dim): (usize, usize),
    sums: &mut [f32],
    visible: impl Fn(usize) -> Range<usize>,
    weigh: impl Fn(&mut [f32], usize, usize, Range<usize>),
) {
    let count = sums.len() / dim;
    // Both ends grow with the row.
    let (first, last) = (visible(0), visible(count - 1));
    let shared = last.start..first.end.max(last.start);
    for (index, sums) in sums.chunks_exact_mut(dim).enumerate() {
        let before = visible(index).start..visible(index).end.min(shared.start);
        if !before.is_empty() {
            weigh(sums, query + index, 1, before);
        }
    }
    if !shared.is_empty() {
        weigh(sums, query, count, shared.clone());
    }
    for (index, sums) in sums.chunks_exact_mut(dim).enumerate() {
        let behind = visible(index).start.max(shared.end)..visible(index).end;
        if !behind.is_empty() {
            weigh(sums, query + index, 1, behind);
        }
    }
}
