//! How a batch of spans becomes blocks of `ragged_attention.cu`. The structures here are the kernel's.

use super::{Attention, AttentionError, BiasShape, HeadShape, Keys, RelativeBias};
use crate::kernels::cuda::{Address, Format, Launch, Plain};

/// Threads of a block, its warps, and vectors that a warp works on.
const THREADS: u32 = 128;
const WARPS: usize = 4;
const VECTORS: usize = 4;
/// Keys of a tile.
const TILE: usize = 32;
/// Spans of at most so many vectors spread their keys over a block's warps.
const SPLIT_UP_TO: usize = 16;
/// The widest head that a kernel is compiled for.
const WIDEST_HEAD: usize = 256;

/// `AttentionSpan` of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct DeviceSpan {
    pub first_query: u32,
    pub first_position: u32,
    pub context: u32,
    pub first_key: u32,
    pub paged: u32,
    pub causal: u32,
}

/// `AttentionTask` of the kernel: a block's vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Task {
    pub span: u32,
    pub kv_head: u32,
    pub first: u32,
    pub count: u32,
}

/// `AttentionArgs` of the kernel.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Arguments {
    pub q: Address,
    pub keys: Address,
    pub values: Address,
    pub out: Address,
    pub blocks: Address,
    pub spans: Address,
    pub tasks: Address,
    pub bias: Address,
    pub buckets: Address,
    pub q_stride: u32,
    pub kv_stride: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub dim: u32,
    pub block_size: u32,
    pub window: u32,
    pub max_distance: u32,
    pub scale: f32,
    pub biased: u32,
    /// 0 for none.
    pub soft_cap: f32,
    pub unused: u32,
}

/// `WriteKeyValues` of its kernel; widths in units of 8 bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct WriteArguments {
    pub source: Address,
    pub slab: Address,
    pub slots: Address,
    pub rows: u32,
    pub stride: u32,
    pub width: u32,
    pub unused: u32,
}

// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for DeviceSpan {}
// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for Task {}
// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for Arguments {}
// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for WriteArguments {}

/// How `write_key_values` is started on `rows`, a warp each.
pub(super) fn write_launch(rows: usize) -> Launch {
    let blocks = rows.div_ceil(WARPS) as u32;
    Launch { kernel: "write_key_values", blocks, threads: THREADS, shared_bytes: 0 }
}

/// A batch of spans cut into blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AttentionPlan {
    /// As the kernel reads them.
    pub spans: Vec<DeviceSpan>,
    /// The block tables, one behind the other.
    pub blocks: Vec<u32>,
    /// Rows a block; 1 where nothing is paged.
    pub block_size: u32,
    /// Blocks of `attend_rows`.
    pub rows: Vec<Task>,
    /// Blocks of `attend_split`.
    pub split: Vec<Task>,
}

impl AttentionPlan {
    /// Plans checked spans; with `one_kernel`, all for `attend_split`, whose sums have one order however many rows there are.
    ///
    /// # Errors
    /// When the heads are none that the kernels are compiled for.
    pub fn new(attention: &Attention<'_>, one_kernel: bool) -> Result<Self, AttentionError> {
        let HeadShape { heads, kv_heads, dim } = attention.heads;
        if !dim.is_multiple_of(4) || dim > WIDEST_HEAD {
            return Err(AttentionError::Head { dim });
        }
        let mut plan = Self { block_size: 1, ..Self::default() };
        for (index, span) in attention.spans.iter().enumerate() {
            let (first_key, paged) = match span.keys {
                Keys::Rows { start } => (start, 0),
                Keys::Blocks { blocks, block_size } => {
                    let first = plan.blocks.len();
                    plan.blocks.extend(blocks.iter().map(|block| block.index() as u32));
                    plan.block_size = block_size as u32;
                    (first, 1)
                }
            };
            plan.spans.push(DeviceSpan {
                first_query: span.queries.start as u32,
                first_position: span.first_position as u32,
                context: span.context as u32,
                first_key: first_key as u32,
                paged,
                causal: u32::from(span.causal),
            });
            let vectors = span.queries.len() * (heads / kv_heads);
            let (tasks, size) = match one_kernel || vectors <= SPLIT_UP_TO {
                true => (&mut plan.split, VECTORS),
                false => (&mut plan.rows, VECTORS * WARPS),
            };
            for kv_head in 0..kv_heads as u32 {
                tasks.extend((0..vectors).step_by(size).map(|first| Task {
                    span: index as u32,
                    kv_head,
                    first: first as u32,
                    count: size.min(vectors - first) as u32,
                }));
            }
        }
        Ok(plan)
    }

    /// How the two kernels are started; one without blocks is not.
    pub fn launches(&self, heads: HeadShape, format: Format) -> [Launch; 2] {
        let held = heads.dim.next_power_of_two().max(64);
        let tile = TILE * (heads.dim + 4);
        let weights = WARPS * VECTORS * TILE;
        let launch = |kernel, tasks: &[Task], numbers: usize| Launch {
            kernel,
            blocks: tasks.len() as u32,
            threads: THREADS,
            shared_bytes: (numbers * size_of::<f32>()) as u32,
        };
        let [rows, split] = kernels(held, format);
        [
            launch(rows, &self.rows, WARPS * VECTORS * heads.dim + weights + tile),
            launch(split, &self.split, VECTORS * heads.dim + weights + WARPS * tile),
        ]
    }
}

/// The names of the kernels for heads of up to `held` numbers.
fn kernels(held: usize, format: Format) -> [&'static str; 2] {
    match (format, held) {
        (Format::F32, 64) => ["attend_rows_f32_64", "attend_split_f32_64"],
        (Format::F32, 128) => ["attend_rows_f32_128", "attend_split_f32_128"],
        (Format::F32, _) => ["attend_rows_f32_256", "attend_split_f32_256"],
        (Format::Bf16, 64) => ["attend_rows_bf16_64", "attend_split_bf16_64"],
        (Format::Bf16, 128) => ["attend_rows_bf16_128", "attend_split_bf16_128"],
        (Format::Bf16, _) => ["attend_rows_bf16_256", "attend_split_bf16_256"],
    }
}

impl BiasShape {
    /// The bucket of every distance `-max_distance..=max_distance`; those beyond share the last one's.
    pub(super) fn buckets_by_distance(&self) -> Vec<u32> {
        let reach = self.max_distance as i64;
        (-reach..=reach).map(|relative| self.bucket(relative) as u32).collect()
    }
}

impl RelativeBias {
    /// What the kernel looks up: `(buckets, heads)` weights, and buckets by distance.
    pub(super) fn device_tables(&self) -> (&[f32], Vec<u32>) {
        (&self.weight, self.shape.buckets_by_distance())
    }
}
