//! How `rope.cu` is started. The structure here is the kernel's.

use super::HeadShape;
use crate::kernels::cuda::{Address, Format, Launch, Plain};

/// Heads of a block, a warp each.
const WARPS: usize = 4;

/// `PrepareHeads` of the kernel.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Arguments {
    pub x: Address,
    pub out: Address,
    pub positions: Address,
    pub turns: Address,
    pub query_norm: Address,
    pub key_norm: Address,
    pub rows: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub dim: u32,
    pub query_eps: f32,
    pub key_eps: f32,
    pub normed: u32,
    pub unused: u32,
}

// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for Arguments {}

/// How the kernel is started on `rows` in `format`.
pub(super) fn launch(rows: usize, heads: HeadShape, format: Format) -> Launch {
    let kernel = match format {
        Format::F32 => "prepare_heads_f32",
        Format::Bf16 => "prepare_heads_bf16",
    };
    let blocks = (rows * (heads.heads + 2 * heads.kv_heads)).div_ceil(WARPS) as u32;
    Launch { kernel, blocks, threads: 32 * WARPS as u32, shared_bytes: 0 }
}
