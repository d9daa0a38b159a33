//! The parallel version: a task is some heads of a few neighbouring query rows of one sequence.
//!
//! What a row gives is fixed, however rows are cut into tasks and whatever vectors do the work: a score is
//! [`dot`](crate::kernels::simd::dot)'s sum, the weights of a row are summed from its first visible key in the lanes of
//! [`sum`](crate::kernels::simd::sum), and values are added key by key in order of position, one fused multiply-add each.

use std::{cell::RefCell, mem::MaybeUninit};

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::{
    Attention,
    numbers::Numbers,
    portable,
    row_starts::RowStarts,
    task::{Memory, Task},
};
use crate::kernels::{
    floats,
    pool::{Bands, ComputePool, TileMut},
    simd::Width,
};

/// Keys whose scores a kernel makes at once.
pub(super) const KEYS: usize = 16;
/// Queries whose scores a kernel makes at once, so that a key is read once for both.
pub(super) const PAIR: usize = 2;
/// Queries whose values a kernel sums at once.
pub(super) const QUERIES: usize = 6;
/// Queries a task of many rows: they read the same keys, which are widened once for all and then are in the nearest cache.
const QUERIES_A_TASK: usize = 8 * QUERIES;
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

/// Keys and values, row by row: two parts of the columns of one matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyValues<'a> {
    pub numbers: Numbers<'a>,
    pub stride: usize,
    /// The first column of the keys.
    pub keys: usize,
    /// The first column of the values.
    pub values: usize,
}

impl KeyValues<'_> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.numbers.len() / self.stride
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
    pub values: Numbers<'a>,
    /// Columns of the head, and of an output.
    pub dim: usize,
}

/// Attention of checked heads and spans: `(rows, heads * dim)`.
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
        let seen = first.start..last.end;
        // AVX2's kernels are plain Rust, in which a number's conversion is a call.
        let reads_f16 = width != Width::Avx2;
        let task = Task { attention, span, q, kv, rows, groups, seen, reads_f16 };
        MEMORY.with_borrow_mut(|memory| match width {
            // SAFETY: `width` names only vectors that this processor has.
            #[cfg(target_arch = "x86_64")]
            Width::Avx512 => unsafe { run_avx512(&task, memory, tile) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Width::Avx2 => unsafe { run_avx2(&task, memory, tile) },
            _ => task.run(memory, tile, floats::widen_portable, portable::scores, portable::weigh),
        });
    };
    // SAFETY: a task writes each of its rows in each of its heads, which are the columns of its tile: groups are whole, as was checked.
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
        |from, to| floats::widen_avx512(from, to),
        |queries, keys, rows| avx512::scores(queries, keys, rows),
        |call, out| avx512::weigh(call, out),
    );
}

/// [`Task::run`] compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
#[expect(
    clippy::redundant_closure,
    reason = "a function passed by its name would not be compiled for these vectors"
)]
fn run_avx2(task: &Task<'_>, memory: &mut Memory, tile: TileMut<'_, MaybeUninit<f32>>) {
    task.run(
        memory,
        tile,
        |from, to| floats::widen_avx2(from, to),
        |queries, keys, rows| portable::scores(queries, keys, rows),
        |call, out| portable::weigh(call, out),
    );
}
