//! How `norm.cu` is started. The structure here is the kernel's.

use crate::kernels::cuda::{Address, Format, Launch, Plain};

/// Rows of a block, a warp each.
const WARPS: usize = 4;

/// `NormArgs` of the kernel.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Arguments {
    pub x: Address,
    pub weight: Address,
    pub bias: Address,
    pub out: Address,
    pub rows: u32,
    pub width: u32,
    pub eps: f32,
    pub layer: u32,
}

// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for Arguments {}

/// How the kernel is started on `rows`, for outputs in `format`.
pub(super) fn launch(rows: usize, format: Format) -> Launch {
    let kernel = match format {
        Format::F32 => "norm_f32",
        Format::Bf16 => "norm_bf16",
    };
    let (blocks, threads) = (rows.div_ceil(WARPS) as u32, 32 * WARPS as u32);
    Launch { kernel, blocks, threads, shared_bytes: 0 }
}
