//! Weights in the order in which the micro-kernels read them.
//!
//! Outputs are cut into blocks of 64, padded with zeros. A block is one contiguous stream over k of cache
//! lines. For int8, four lines hold four inputs of the 64 outputs: line `p` holds outputs `16 p..16 p + 16`, and of each
//! its four inputs side by side. For floats, a step holds one input of the 64 outputs: four lines of f32, two of the short ones.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use super::blocks::{PackedSteps, Step};
use super::float::{Float, FloatStep};
use super::memory::Memory;
use super::nibbles::NibbleStep;
use super::weights::ActivationBits;

/// Outputs in a block.
pub(super) const BLOCK: usize = 64;
/// Vectors of outputs in a block: cache lines, but for floats of 16 bits, of which one holds two.
pub(super) const LINES: usize = 4;
/// Outputs in a vector.
pub(super) const LANES: usize = BLOCK / LINES;
/// Inputs in a step of an int8 block.
pub(super) const GROUP: usize = 4;

/// Which outputs share a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// 64 that follow each other.
    Rows,
    /// 32 of the first half of all outputs, and the 32 of the second half that belong to them.
    Halves,
}

impl Order {
    /// Blocks for `n` outputs.
    pub(super) fn blocks(self, n: usize) -> usize {
        match self {
            Order::Rows => n.div_ceil(BLOCK),
            Order::Halves => (n / 2).div_ceil(BLOCK / 2),
        }
    }

    /// The block of an output among `n`, and its place there.
    pub(super) fn place(self, row: usize, n: usize) -> (usize, usize) {
        const HALF: usize = BLOCK / 2;
        match self {
            Order::Rows => (row / BLOCK, row % BLOCK),
            Order::Halves if row < n / 2 => (row / HALF, row % HALF),
            Order::Halves => ((row - n / 2) / HALF, HALF + (row - n / 2) % HALF),
        }
    }
}

/// One cache line of packed weights.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line<T, const N: usize>(pub [T; N]);

/// A line of an int8 block: [LANES][GROUP].
pub(super) type I8Line = Line<i8, 64>;

// SAFETY: 64 bytes of an alignment of 64, so nothing lies between or behind the numbers, and of these any bits are some.
unsafe impl Zeroable for I8Line {}
// SAFETY: as above.
unsafe impl Pod for I8Line {}

/// Sums of a row with a block of outputs.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [f32; BLOCK]);

impl Sums {
    pub(super) const ZERO: Sums = Sums([0.0; BLOCK]);
}

/// The packed weights of a linear map.
#[derive(Debug)]
pub(super) enum Packed {
    F32(PackedFloats<f32>),
    F16(PackedFloats<f16>),
    Bf16(PackedFloats<bf16>),
    I8(PackedI8),
    Blocks(PackedSteps<Step>),
    Nibbles(PackedSteps<NibbleStep>),
}

impl Packed {
    /// How many blocks there are.
    pub(super) fn blocks(&self) -> usize {
        match self {
            Packed::F32(packed) => packed.bias.len(),
            Packed::F16(packed) => packed.bias.len(),
            Packed::Bf16(packed) => packed.bias.len(),
            Packed::I8(packed) => packed.columns.len(),
            Packed::Blocks(packed) => packed.blocks(),
            Packed::Nibbles(packed) => packed.blocks(),
        }
    }
}

/// Floats, packed.
#[derive(Debug)]
pub(super) struct PackedFloats<F> {
    pub(super) steps: Memory<FloatStep<F>>,
    pub(super) bias: Vec<[f32; BLOCK]>,
}

/// int8 weights, packed.
#[derive(Debug)]
pub(super) struct PackedI8 {
    pub(super) lines: Memory<I8Line>,
    pub(super) columns: Vec<I8Columns>,
    pub(super) activations: ActivationBits,
}

/// What turns a block's integer sums into outputs.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct I8Columns {
    /// What to add to the sums of activations that were offset by 128 to be unsigned: -128 times the sum of the weights.
    pub(super) correction: [i32; BLOCK],
    pub(super) scale: [f32; BLOCK],
    pub(super) bias: [f32; BLOCK],
}

impl<F: Float> PackedFloats<F> {
    /// A block's stream and its bias.
    pub(super) fn block(&self, block: usize) -> (&[FloatStep<F>], &[f32; BLOCK]) {
        let len = self.steps.len() / self.bias.len();
        (&self.steps[block * len..(block + 1) * len], &self.bias[block])
    }
}

impl PackedI8 {
    /// A block's stream and what its sums need to become outputs.
    pub(super) fn block(&self, block: usize) -> (&[I8Line], &I8Columns) {
        let len = self.lines.len() / self.columns.len();
        (&self.lines[block * len..(block + 1) * len], &self.columns[block])
    }

    /// The stream of the block behind `block`; empty behind the last.
    pub(super) fn next(&self, block: usize) -> &[I8Line] {
        let len = self.lines.len() / self.columns.len();
        self.lines.get((block + 1) * len..(block + 2) * len).unwrap_or_default()
    }
}
