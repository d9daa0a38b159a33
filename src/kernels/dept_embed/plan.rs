//! How a batch becomes blocks of `dept_embed.cu`: rows with one slot's update together, so that a block stages its strip of
//! B once. The structures here are the kernel's.

use super::{AdapterSlot, DeptEmbedError, Row, RowTable, UpdateSlot};
use crate::kernels::cuda::{Address, Launch, Plain};

/// Rows that a block's warps hold at a time, columns that they hold, threads.
const GROUP: usize = 64;
const STRIP: usize = 256;
const THREADS: u32 = 256;
/// Most rows of one slot that a block takes; half as many where that leaves multiprocessors idle. With blocks of 256 rows
/// T5-base's batch in the tests moves 1.05 times the least, of 128 rows 1.12, of 64 rows 1.23: B is read again by each.
const MOST_ROWS: usize = 4 * GROUP;
/// Rows of a block that only copies.
const COPIES: usize = 16;
/// Most rows of B in shared memory: 80 KiB with A's, so that two blocks fit a multiprocessor.
const MOST_RANK: usize = 64;
/// The slot of a task that copies.
const NO_SLOT: u32 = u32::MAX;

/// A table's format, as the kernel numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum TableFormat {
    F32,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the loader widens 16-bit tables; the kernel is tested on both")
    )]
    F16,
    #[cfg_attr(not(any(test, feature = "cuda")), expect(dead_code, reason = "the CUDA op uses it"))]
    Bf16,
    I8,
}

/// A slot's update, as the kernel numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum UpdateKind {
    None,
    LowRank,
    Adept,
}

/// `EmbedSlot` of the kernel.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct DeviceSlot {
    pub prompt: Address,
    pub a: Address,
    pub b: Address,
    pub bias_a: Address,
    pub bias_b: Address,
    pub kind: u32,
    pub rank: u32,
    pub scale: f32,
    pub unused: u32,
}

/// `EmbedTask` of the kernel: a block's rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Task {
    pub first: u32,
    pub count: u32,
    pub slot: u32,
    pub strip: u32,
    pub strips: u32,
}

/// `DeptEmbed` of the kernel.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Arguments {
    pub rows: Address,
    pub order: Address,
    pub tasks: Address,
    pub slots: Address,
    pub table: Address,
    pub table_scales: Address,
    pub out: Address,
    pub hidden: u32,
    pub table_format: u32,
    pub rank_chunk: u32,
    pub unused: u32,
}

// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for DeviceSlot {}
// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for Task {}
// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for Arguments {}

/// A batch cut into blocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EmbedPlan {
    /// Row numbers, those of a task one behind the other.
    pub order: Vec<u32>,
    /// A block each.
    pub tasks: Vec<Task>,
    /// Rows of B that shared memory holds.
    pub rank_chunk: usize,
}

impl EmbedPlan {
    /// Plans checked `rows` of `hidden` columns for a device that `blocks` blocks keep busy. Larger tasks read B less often;
    /// smaller ones are made where there would be too few.
    ///
    /// # Errors
    /// When rows are not a multiple of 4 numbers long: the kernel reads four at a time.
    pub fn new(
        slots: &[AdapterSlot<'_>],
        rows: &RowTable,
        hidden: usize,
        blocks: usize,
    ) -> Result<Self, DeptEmbedError> {
        if !hidden.is_multiple_of(4) {
            return Err(DeptEmbedError::Hidden { hidden });
        }
        let (order, ends) = by_slot(slots, rows);
        let counts = |slot: usize| ends[slot + 1] - ends[slot];
        let strips = hidden.div_ceil(STRIP);
        let tasks_of = |size: usize| -> usize {
            (0..slots.len()).map(|slot| counts(slot).div_ceil(size) * strips).sum()
        };
        let size = if tasks_of(MOST_ROWS) >= blocks { MOST_ROWS } else { MOST_ROWS / 2 };
        let mut tasks = Vec::new();
        cut(0..ends[0], COPIES, |first, count| {
            tasks.push(Task { first, count, slot: NO_SLOT, strip: 0, strips: strips as u32 });
        });
        let mut rank = 4;
        for (slot, held) in slots.iter().enumerate().filter(|&(slot, _)| counts(slot) > 0) {
            let rows = ends[slot]..ends[slot + 1];
            rank = rank.max(rank_of(held.update));
            let slot = slot as u32;
            match held.update {
                // The units between the two products are computed once for all columns.
                UpdateSlot::Adept(_) => cut(rows, GROUP, |first, count| {
                    tasks.push(Task { first, count, slot, strip: 0, strips: strips as u32 });
                }),
                _ => cut(rows, size, |first, count| {
                    tasks.extend((0..strips as u32).map(|strip| Task {
                        first,
                        count,
                        slot,
                        strip,
                        strips: 1,
                    }));
                }),
            }
        }
        Ok(Self { order, tasks, rank_chunk: rank.next_multiple_of(4).min(MOST_RANK) })
    }

    /// How the kernel is started.
    pub fn launch(&self) -> Launch {
        Launch {
            kernel: "dept_embed",
            blocks: self.tasks.len() as u32,
            threads: THREADS,
            shared_bytes: (self.rank_chunk * (STRIP + GROUP) * size_of::<f32>()) as u32,
        }
    }
}

/// Row numbers, first those that are copied, then those of slot 0, 1, ..., each in order of the batch; and where the rows of
/// each end (the copied ones at 0, slot `i` at `i + 1`).
fn by_slot(slots: &[AdapterSlot<'_>], rows: &RowTable) -> (Vec<u32>, Vec<usize>) {
    let bin = |row: Row| match row {
        Row::Token { delta: Some(delta), .. } => match slots[delta.slot as usize].update {
            UpdateSlot::None => 0,
            UpdateSlot::LowRank(_) | UpdateSlot::Adept(_) => delta.slot as usize + 1,
        },
        Row::Token { delta: None, .. } | Row::Prompt { .. } => 0,
    };
    let mut ends = vec![0; slots.len() + 1];
    rows.iter().for_each(|row| ends[bin(row)] += 1);
    let mut start = 0;
    for end in &mut ends {
        (start, *end) = (start + *end, start);
    }
    let mut order = vec![0; rows.len()];
    for (number, row) in rows.iter().enumerate() {
        let place = &mut ends[bin(row)];
        order[*place] = number as u32;
        *place += 1;
    }
    (order, ends)
}

fn rank_of(update: UpdateSlot<'_>) -> usize {
    match update {
        UpdateSlot::None => 0,
        UpdateSlot::LowRank(pair) => pair.rank,
        UpdateSlot::Adept(network) => network.bias_a.len(),
    }
}

/// Calls `push` with the pieces of `rows` of at most `size`, as (first, count).
fn cut(rows: std::ops::Range<usize>, size: usize, mut push: impl FnMut(u32, u32)) {
    for first in rows.clone().step_by(size) {
        push(first as u32, size.min(rows.end - first) as u32);
    }
}
