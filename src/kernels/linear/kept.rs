//! Packed maps as bytes: how they are kept in a file, and come back without being packed again.
//!
//! All instruction sets read the same order, so what one machine has packed serves another of its byte order.

use bytemuck::Pod;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::activation::Epilogue;
use super::blocks::{PackedSteps, SPAN, Step};
use super::float::Float;
use super::memory::Memory;
use super::nibbles::NibbleStep;
use super::pack::{BLOCK, GROUP, I8Columns, LINES, Packed, PackedFloats, PackedI8};
use super::weights::{ActivationBits, check_shape};
use super::{ComputePool, Linear, LinearShape};

/// The order and meaning of the bytes, and how a checkpoint's numbers become them. It moves with every change of what
/// [`Linear::bytes`] gives for the same checkpoint: tests here and in `tests/it/kept.rs` hold it against digests.
pub const LAYOUT: u32 = 2;

/// The arithmetic that packed weights are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackedFormat {
    /// Full precision.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit floats with the range of 32.
    Bf16,
    /// int8 with a scale an output.
    I8(ActivationBits),
    /// int8 in blocks of 32 inputs.
    Blocks(ActivationBits),
    /// 4 bits in blocks of 32 inputs.
    Nibbles(ActivationBits),
}

/// A packed map as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedBytes<B> {
    /// How it computes.
    pub format: PackedFormat,
    /// Outputs of all its parts, before a gate, and inputs.
    pub shape: LinearShape,
    /// The weights in the order of the kernels; to be read at a multiple of 64.
    pub weights: B,
    /// What belongs to outputs: biases, and scales and corrections of sums where the format has such.
    pub ends: B,
}

impl Linear {
    /// The packed map as bytes of this machine.
    pub fn bytes(&self) -> PackedBytes<&[u8]> {
        let (format, weights, ends) = match &*self.packed {
            Packed::F32(packed) => (PackedFormat::F32, packed.steps.bytes(), cast(&packed.bias)),
            Packed::F16(packed) => (PackedFormat::F16, packed.steps.bytes(), cast(&packed.bias)),
            Packed::Bf16(packed) => (PackedFormat::Bf16, packed.steps.bytes(), cast(&packed.bias)),
            Packed::I8(packed) => {
                (PackedFormat::I8(packed.activations), packed.lines.bytes(), cast(&packed.columns))
            }
            Packed::Blocks(packed) => {
                (PackedFormat::Blocks(packed.activations), packed.steps.bytes(), cast(&packed.bias))
            }
            Packed::Nibbles(packed) => {
                (PackedFormat::Nibbles(packed.activations), packed.steps.bytes(), cast(&packed.bias))
            }
        };
        let n = self.shape.n * BLOCK / self.epilogue.block_outputs();
        PackedBytes { format, shape: LinearShape { n, ..self.shape }, weights, ends }
    }

    /// The map that gave `bytes` and ended in `epilogue`: to the bit the same. Its weights stay where they are.
    ///
    /// `None` where the bytes are not as many as the shape asks for, or the weights do not lie at a multiple of 64.
    pub fn from_bytes(bytes: PackedBytes<Bytes>, epilogue: Epilogue, pool: ComputePool) -> Option<Linear> {
        let PackedBytes { format, shape, weights, ends } = bytes;
        check_shape(shape).ok()?;
        if matches!(epilogue, Epilogue::Gated(_)) && !shape.n.is_multiple_of(2) {
            return None;
        }
        let blocks = epilogue.order().blocks(shape.n);
        let lines = blocks.checked_mul(shape.k.div_ceil(GROUP) * LINES);
        let steps = blocks.checked_mul(shape.k.div_ceil(SPAN));
        let packed = match format {
            PackedFormat::F32 => Packed::F32(floats(weights, &ends, shape.k, blocks)?),
            PackedFormat::F16 => Packed::F16(floats(weights, &ends, shape.k, blocks)?),
            PackedFormat::Bf16 => Packed::Bf16(floats(weights, &ends, shape.k, blocks)?),
            PackedFormat::I8(activations) => {
                let lines = Memory::of(weights, lines?)?;
                Packed::I8(PackedI8 { lines, columns: numbers::<I8Columns>(&ends, blocks)?, activations })
            }
            PackedFormat::Blocks(activations) => {
                let steps = Memory::<Step>::of(weights, steps?)?;
                Packed::Blocks(PackedSteps { steps, bias: numbers(&ends, blocks)?, activations })
            }
            PackedFormat::Nibbles(activations) => {
                let steps = Memory::<NibbleStep>::of(weights, steps?)?;
                Packed::Nibbles(PackedSteps { steps, bias: numbers(&ends, blocks)?, activations })
            }
        };
        Some(Linear::of(packed, shape, epilogue, pool))
    }
}

/// The floats of `blocks` blocks of `k` inputs.
fn floats<F: Float>(weights: Bytes, ends: &[u8], k: usize, blocks: usize) -> Option<PackedFloats<F>> {
    let steps = Memory::of(weights, blocks.checked_mul(k)?)?;
    Some(PackedFloats { steps, bias: numbers(ends, blocks)? })
}

fn cast<T: Pod>(numbers: &[T]) -> &[u8] {
    bytemuck::cast_slice(numbers)
}

/// `count` numbers, wherever their bytes lie.
fn numbers<T: Pod>(bytes: &[u8], count: usize) -> Option<Vec<T>> {
    (count.checked_mul(size_of::<T>()) == Some(bytes.len())).then(|| bytemuck::pod_collect_to_vec(bytes))
}
