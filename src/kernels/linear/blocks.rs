//! Weights in blocks of 32 inputs with a scale each, and activations on their way to them.
//!
//! An output is `(sum over blocks, in order, of block_sum * block_scale) * activation_scale + bias`, the sum over blocks by
//! fused multiply-adds from zero. A block's sum of products is exact: activations have 15 bits, `128 * h + l` with `h` and
//! `l` in signed bytes. Weights are offset by 128 to be unsigned, which the block's sum of activations makes good.

use half::f16;

use super::pack::{BLOCK, GROUP, LINES, Order};
use super::quantise::{Group, ROUND, scale_of};
use super::weights::{ActivationBits, LinearShape};

/// Inputs that share a scale.
pub(super) const SPAN: usize = 32;
/// Groups of inputs in a block.
pub(super) const GROUPS: usize = SPAN / GROUP;

/// The next 32 inputs of 64 outputs.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Step {
    /// Weights plus 128, by group of inputs: line `p` holds outputs `16 p..16 p + 16`, and of each its four inputs.
    pub(super) weights: [[[u8; 64]; LINES]; GROUPS],
    /// A scale an output.
    pub(super) scales: [f16; BLOCK],
}

/// Packed weights: of each 64 outputs the steps over all inputs, and the biases.
#[derive(Debug)]
pub(super) struct PackedSteps<S> {
    steps: Vec<S>,
    bias: Vec<[f32; BLOCK]>,
}

impl<S: Copy> PackedSteps<S> {
    /// `len` empty steps for each block of outputs.
    pub(super) fn new(empty: S, len: usize, bias: Vec<[f32; BLOCK]>) -> PackedSteps<S> {
        PackedSteps { steps: vec![empty; bias.len() * len], bias }
    }

    /// How many blocks of outputs there are.
    pub(super) fn blocks(&self) -> usize {
        self.bias.len()
    }

    /// The steps of a block of outputs, and its bias.
    pub(super) fn block(&self, block: usize) -> (&[S], &[f32; BLOCK]) {
        let len = self.steps.len() / self.bias.len();
        (&self.steps[block * len..(block + 1) * len], &self.bias[block])
    }

    /// The steps of a block of outputs, to be filled.
    pub(super) fn block_mut(&mut self, block: usize) -> &mut [S] {
        let len = self.steps.len() / self.bias.len();
        &mut self.steps[block * len..(block + 1) * len]
    }
}

impl PackedSteps<Step> {
    /// Packs (n, k) row-major `values` with their `scales`, `k` over 32 of them a row.
    pub(super) fn pack_blocks(
        (values, scales): (&[i8], &[f16]),
        shape: LinearShape,
        bias: Option<&[f32]>,
        order: Order,
    ) -> PackedSteps<Step> {
        let len = shape.k.div_ceil(SPAN);
        let empty = Step { weights: [[[128; 64]; LINES]; GROUPS], scales: [f16::ZERO; BLOCK] };
        let mut packed = PackedSteps::new(empty, len, order.columns(bias, shape.n));
        for (row, (weights, scales)) in values.chunks_exact(shape.k).zip(scales.chunks_exact(len)).enumerate()
        {
            let (block, column) = order.place(row, shape.n);
            let (line, lane) = (column / (BLOCK / LINES), column % (BLOCK / LINES));
            let steps = packed.block_mut(block).iter_mut();
            for ((step, weights), &scale) in steps.zip(weights.chunks(SPAN)).zip(scales) {
                step.scales[column] = scale;
                for (group, weights) in step.weights.iter_mut().zip(weights.chunks(GROUP)) {
                    let places = &mut group[line][lane * GROUP..];
                    places.iter_mut().zip(weights).for_each(|(place, &w)| *place = w.cast_unsigned() ^ 0x80);
                }
            }
        }
        packed
    }
}

/// 32 activations that meet a step of weights.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Activations {
    /// The scale of the whole row.
    pub(super) scale: f32,
    /// The sum of the activations, which is an integer.
    pub(super) sum: f32,
    /// The sum's opposite. Weights that were offset by 128 to be unsigned make 128 times the sum too much.
    pub(super) minus_sum: i32,
    /// `h` of each, bytes of an i8.
    pub(super) high: [Group; GROUPS],
    /// `l` of each, 0 to 127.
    pub(super) low: [Group; GROUPS],
}

/// Quantises one row of activations to 15 bits, see [`super::quantise`].
#[inline(always)]
pub(super) fn quantise_blocks(x: &[f32], record: &mut [Activations]) {
    let (scale, inverse) = scale_of(x, ActivationBits::Fifteen.limit() as f32);
    let integer = |value: f32| (value * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
    let fill = |values: &[f32; SPAN], block: &mut Activations| {
        let mut integers = [0; SPAN];
        if inverse != 0.0 {
            integers.iter_mut().zip(values).for_each(|(q, &value)| *q = integer(value));
        }
        block.scale = scale;
        let sum: i32 = integers.iter().sum();
        (block.sum, block.minus_sum) = (sum as f32, -sum);
        let (high, low) = (block.high.as_flattened_mut(), block.low.as_flattened_mut());
        for ((high, low), q) in high.iter_mut().zip(low).zip(integers) {
            *high = (q >> 7) as u8;
            *low = (q & 127) as u8;
        }
    };
    let (whole, tail) = x.as_chunks::<SPAN>();
    whole.iter().zip(&mut *record).for_each(|(values, block)| fill(values, block));
    if !tail.is_empty() {
        let mut values = [0.0; SPAN];
        values[..tail.len()].copy_from_slice(tail);
        fill(&values, &mut record[whole.len()]);
    }
}
