//! How `best.cu` is started. The structure here is the kernel's.

use crate::kernels::cuda::{Address, Format, Launch, Plain};

/// Threads of a block, and its warps: a row is searched by one block, which alone has to keep memory busy.
const THREADS: u32 = 512;
const WARPS: u32 = THREADS / 32;

/// `BestArgs` of the kernel.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Arguments {
    pub logits: Address,
    pub out: Address,
    pub stride: u32,
    pub vocab: u32,
    pub misaligned: u32,
    pub unused: u32,
}

// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for Arguments {}

impl Arguments {
    /// For logits of `format`, whose rows are `stride` numbers apart. `(rows, stride) -> (rows)`
    pub fn new((logits, format): (Address, Format), out: Address, stride: usize, vocab: usize) -> Self {
        let bytes = format.bytes() as u64;
        Self {
            logits,
            out,
            stride: stride as u32,
            vocab: vocab as u32,
            misaligned: (logits.0 % (4 * bytes) / bytes) as u32,
            unused: 0,
        }
    }
}

/// How the kernel is started on `rows`: shared memory holds a logit and an id a warp.
pub(super) fn launch(rows: usize, format: Format) -> Launch {
    let kernel = match format {
        Format::F32 => "best_f32",
        Format::Bf16 => "best_bf16",
    };
    Launch { kernel, blocks: rows as u32, threads: THREADS, shared_bytes: 2 * 4 * WARPS }
}
