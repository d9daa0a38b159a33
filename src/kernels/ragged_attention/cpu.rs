//! The parallel version: a task is some heads of a few neighbouring query rows of one sequence.
//!
//! What a row gives is fixed, however rows are cut into tasks and whatever vectors do the work: a score is
//! [`simd::dot`]'s sum, the weights of a row are summed from its first visible key in [`simd::sum`]'s lanes, and values are
//! added key by key in order of position, one fused multiply-add each.

use std::{cell::RefCell, mem::MaybeUninit, ops::Range};

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::{Attention, Span, portable};
use crate::kernels::{
    pool::{Bands, ComputePool, TileMut},
    simd::{self, Width},
};

/// Keys whose scores a kernel makes at once.
pub(super) const KEYS: usize = 16;
/// Queries whose scores a kernel makes at once, so that a key is read once for both.
pub(super) const PAIR: usize = 2;
/// Queries whose values a kernel sums at once.
pub(super) const QUERIES: usize = 6;
/// Queries a task of many rows: they read the same keys, which then are in the nearest cache.
const QUERIES_A_TASK: usize = 4 * QUERIES;
/// Keys whose values are read before the next head's turn: a few kilobytes a head.
const VALUES: usize = 64;
/// Scores that make a task worth a thread's while: some microseconds.
const TASK_WORK: usize = 1 << 10;

thread_local! {
    /// What a task works in, kept between calls.
    static MEMORY: RefCell<Memory> = const { RefCell::new(Memory::new()) };
}

/// A part of the columns of a matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub offset: usize,
}

/// Keys and values, row by row: two parts of one matrix.
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

/// Rows of a matrix, by where they start, and how far the last of them lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowStarts<'a> {
    pub starts: &'a [usize],
    pub last: usize,
}

impl<'a> RowStarts<'a> {
    #[inline(always)]
    fn new(starts: &'a [usize]) -> Self {
        Self { starts, last: starts.iter().copied().max().unwrap_or(0) }
    }
}

/// Weighs values into the outputs of at most [`QUERIES`] queries that see the same keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct WeighedSum<'a> {
    /// The weights of the first query's keys, then `stride` on those of the next.
    pub weights: &'a [f32],
    pub stride: usize,
    pub queries: usize,
    /// The keys' rows in `values`.
    pub rows: RowStarts<'a>,
    /// From the head's first column on.
    pub values: &'a [f32],
    /// Columns of the head, and of an output.
    pub dim: usize,
}

/// The memory of a task.
#[derive(Debug)]
struct Memory {
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
}

impl Memory {
    const fn new() -> Memory {
        Memory {
            starts: Vec::new(),
            queries: Vec::new(),
            visible: Vec::new(),
            scores: Vec::new(),
            sums: Vec::new(),
        }
    }
}

/// One tile of the output, and what it reads. Its queries are numbered by group, then row, then head of the group.
struct Task<'a> {
    attention: &'a Attention<'a>,
    span: &'a Span<'a>,
    q: Rows<'a>,
    kv: KeyValues<'a>,
    /// Its query rows.
    rows: Range<usize>,
    /// Its key and value heads, each with its group of query heads.
    groups: Range<usize>,
    /// Positions of the keys that any of its rows sees.
    seen: Range<usize>,
}

/// Attention of checked spans: `(rows, heads * dim)`.
pub(super) fn attend(
    attention: &Attention<'_>,
    width: Width,
    (q, kv): (Rows<'_>, KeyValues<'_>),
) -> Vec<f32> {
    let Plan { ends, spans, groups, serial } = Plan::new(attention);
    let heads = attention.heads;
    let group_columns = heads.heads / heads.kv_heads * heads.dim;
    let bands = Bands { ends: &ends, columns: heads.query_width(), tile_columns: groups * group_columns };
    let alone = ComputePool::serial();
    let pool = if serial { &alone } else { attention.pool };
    let work = |band: usize, tile: TileMut<'_, MaybeUninit<f32>>| {
        let (span, rows) = (&attention.spans[spans[band]], tile.rows());
        let first = span.visible(rows.start, attention.window);
        let last = span.visible(rows.end - 1, attention.window);
        let groups = tile.columns().start / group_columns..tile.columns().end / group_columns;
        let task = Task { attention, span, q, kv, rows, groups, seen: first.start..last.end };
        MEMORY.with_borrow_mut(|memory| match width {
            // SAFETY: `width` names only vectors that this processor has.
            #[cfg(target_arch = "x86_64")]
            Width::Avx512 => unsafe { run_avx512(&task, memory, tile) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Width::Avx2 => unsafe { run_avx2(&task, memory, tile) },
            _ => task.run(memory, tile, portable::scores, portable::weigh),
        });
    };
    // SAFETY: a task writes each of its rows in each of its heads, the columns of its tile.
    unsafe { pool.fill_bands(&bands, work) }
}

/// How a call is cut into tasks.
struct Plan {
    /// Where each band of rows ends; it is part of one span.
    ends: Vec<usize>,
    /// The span of each band.
    spans: Vec<usize>,
    /// Groups of heads a task.
    groups: usize,
    /// Whether it is too little work for more than one thread.
    serial: bool,
}

impl Plan {
    fn new(attention: &Attention<'_>) -> Plan {
        let heads = attention.heads;
        let group = heads.heads / heads.kv_heads;
        let rows_a_band = (QUERIES_A_TASK / group).max(1);
        let mut plan = Plan { ends: Vec::new(), spans: Vec::new(), groups: 1, serial: false };
        let (mut work, mut tallest) = (0, 0);
        for (index, span) in attention.spans.iter().enumerate() {
            let rows = span.queries.clone();
            tallest = rows.len().min(rows_a_band).max(tallest);
            work += rows.len() * span.context * heads.heads;
            for first in rows.clone().step_by(rows_a_band) {
                plan.ends.push(rows.end.min(first + rows_a_band));
                plan.spans.push(index);
            }
        }
        let wanted = (work / TASK_WORK).min(4 * attention.pool.threads());
        plan.serial = wanted <= 1;
        // A task of one row takes all heads where it can: a key's heads lie side by side, and are read in one go.
        if tallest * group <= QUERIES {
            let across = wanted.div_ceil(plan.ends.len().max(1)).clamp(1, heads.kv_heads);
            plan.groups = heads.kv_heads.div_ceil(across);
        }
        plan
    }
}

/// [`Task::run`] compiled for AVX-512, with kernels of its own.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn run_avx512(task: &Task<'_>, memory: &mut Memory, tile: TileMut<'_, MaybeUninit<f32>>) {
    task.run(
        memory,
        tile,
        |queries, keys, rows| avx512::scores(queries, keys, rows),
        |call, out| avx512::weigh(call, out),
    );
}

/// [`Task::run`] compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(task: &Task<'_>, memory: &mut Memory, tile: TileMut<'_, MaybeUninit<f32>>) {
    task.run(memory, tile, portable::scores, portable::weigh);
}

impl Task<'_> {
    /// `softmax(scale * q . K + bias) . V` for all queries. `scores` makes dot products, `weigh` adds weighed values.
    #[inline(always)]
    fn run(
        &self,
        memory: &mut Memory,
        mut tile: TileMut<'_, MaybeUninit<f32>>,
        scores: impl Fn(&[&[f32]], &[f32], &RowStarts<'_>) -> [[f32; KEYS]; PAIR],
        weigh: impl Fn(&WeighedSum<'_>, &mut [f32]),
    ) {
        self.find_rows(&mut memory.starts);
        self.find_queries(&mut memory.queries);
        self.find_visible(&mut memory.visible);
        let queries = self.rows.len() * self.group() * self.groups.len();
        memory.scores.resize(queries * memory.starts.len(), 0.0);
        memory.sums.clear();
        memory.sums.resize(queries * self.attention.heads.dim, 0.0);
        self.score(memory, scores);
        self.weigh(memory, weigh);
        for query in 0..queries {
            self.finish(memory, query, &mut tile);
        }
    }

    /// Query heads of a group.
    fn group(&self) -> usize {
        self.attention.heads.heads / self.attention.heads.kv_heads
    }

    /// The row and the head of a query.
    fn place(&self, query: usize) -> (usize, usize) {
        let by_row = query / self.group();
        let (group, row) = (by_row / self.rows.len(), by_row % self.rows.len());
        (self.rows.start + row, (self.groups.start + group) * self.group() + query % self.group())
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
        let heads = self.group() * self.attention.heads.dim;
        for kv_head in self.groups.clone() {
            for row in self.rows.clone() {
                let first = row * self.q.stride + self.q.offset + kv_head * heads;
                queries.extend((first..first + heads).step_by(self.attention.heads.dim));
            }
        }
    }

    fn find_rows(&self, starts: &mut Vec<usize>) {
        starts.clear();
        for (first, length) in self.span.keys.runs(self.seen.clone()) {
            starts.extend((first..first + length).map(|row| row * self.kv.keys.stride));
        }
        let last = starts.last().copied().unwrap_or(0);
        starts.resize(starts.len().next_multiple_of(KEYS), last);
    }

    /// The scores of all queries, a tile of keys at a time: what a tile holds comes from memory once.
    #[inline(always)]
    fn score(
        &self,
        memory: &mut Memory,
        scores: impl Fn(&[&[f32]], &[f32], &RowStarts<'_>) -> [[f32; KEYS]; PAIR],
    ) {
        let dim = self.attention.heads.dim;
        let (count, a_group) = (memory.starts.len(), self.rows.len() * self.group());
        let q = |start: usize| &self.q.values[start..start + dim];
        for (tile, starts) in memory.starts.chunks_exact(KEYS).enumerate() {
            let (rows, first) = (RowStarts::new(starts), tile * KEYS);
            let in_sight = |visible: &Range<usize>| visible.start < first + KEYS && visible.end > first;
            let groups = memory.queries.chunks(a_group).zip(memory.visible.chunks(a_group));
            let groups = groups.zip(memory.scores.chunks_mut(a_group * count));
            for (kv_head, ((queries, visible), out)) in self.groups.clone().zip(groups) {
                let keys = &self.kv.keys.values[self.kv.keys.offset + kv_head * dim..];
                let pairs = queries.chunks(PAIR).zip(visible.chunks(PAIR));
                for ((queries, visible), out) in pairs.zip(out.chunks_mut(PAIR * count)) {
                    if !visible.iter().any(in_sight) {
                        continue;
                    }
                    let found = match *queries {
                        [one] => scores(&[q(one)], keys, &rows),
                        [one, other] => scores(&[q(one), q(other)], keys, &rows),
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
    fn weigh(&self, memory: &mut Memory, weigh: impl Fn(&WeighedSum<'_>, &mut [f32])) {
        let dim = self.attention.heads.dim;
        let count = memory.starts.len();
        for (query, scores) in memory.scores.chunks_exact_mut(count.max(1)).enumerate() {
            let (row, head) = self.place(query);
            self.to_weights(row, head, &mut scores[memory.visible[query].clone()]);
        }
        let a_group = self.rows.len() * self.group();
        for first in (0..count).step_by(VALUES) {
            for (group, sums) in memory.sums.chunks_exact_mut(a_group * dim).enumerate() {
                let start = self.kv.values.offset + (self.groups.start + group) * dim;
                for (block, sums) in sums.chunks_mut(QUERIES * dim).enumerate() {
                    let query = group * a_group + block * QUERIES;
                    let sum = |query: usize, queries: usize, keys: Range<usize>| WeighedSum {
                        weights: &memory.scores[query * count + keys.start..],
                        stride: count,
                        queries,
                        rows: RowStarts::new(&memory.starts[keys]),
                        values: &self.kv.values.values[start..],
                        dim,
                    };
                    let visible = &memory.visible[query..query + sums.len() / dim];
                    let visible = |block: usize| {
                        visible[block].start.max(first)..visible[block].end.min(first + VALUES)
                    };
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
