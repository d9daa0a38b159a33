//! Weights in blocks of 32 inputs with a scale each, and activations on their way to them.
//!
//! An output is `sum over blocks, in order, of block_sum * (block_scale * activation_scale) + bias`, the sum over blocks by fused
//! multiply-adds from zero. Each 32 activations have a scale of their own, so that one outlier costs only its neighbours
//! precision, and 8 or 15 bits: at 15 they are `128 * h + l` with `h` and `l` in signed bytes. A block's sum of products is
//! exact. Weights are offset by 128 to be unsigned, which the block's sum of activations makes good.

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
    pub(super) activations: ActivationBits,
}

impl<S: Copy> PackedSteps<S> {
    /// `len` empty steps for each block of outputs.
    pub(super) fn new(
        empty: S,
        len: usize,
        bias: Vec<[f32; BLOCK]>,
        activations: ActivationBits,
    ) -> PackedSteps<S> {
        PackedSteps { steps: vec![empty; bias.len() * len], bias, activations }
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
        (values, scales, activations): (&[i8], &[f16], ActivationBits),
        shape: LinearShape,
        bias: Option<&[f32]>,
        order: Order,
    ) -> PackedSteps<Step> {
        let len = shape.k.div_ceil(SPAN);
        let empty = Step { weights: [[[128; 64]; LINES]; GROUPS], scales: [f16::ZERO; BLOCK] };
        let mut packed = PackedSteps::new(empty, len, order.columns(bias, shape.n), activations);
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

/// 32 activations that meet a step of weights, in `P` bytes each: see [`ActivationBits::planes`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Activations<const P: usize> {
    /// Their scale.
    pub(super) scale: f32,
    /// Their sum: the scale times an integer, rounded once.
    pub(super) sum: f32,
    /// What the first byte's sum of products starts with: weights that were offset by 128 to be unsigned make 128 times the
    /// activations' sum too much.
    pub(super) correction: i32,
    /// At 8 bits each activation; at 15 `h` of each, then `l` of each, 0 to 127. Bytes of an i8.
    pub(super) planes: [[Group; GROUPS]; P],
}

impl<const P: usize> Activations<P> {
    const BITS: ActivationBits = match P {
        1 => ActivationBits::Eight,
        2 => ActivationBits::Fifteen,
        _ => panic!("an activation takes one byte or two"),
    };

    /// All zeros.
    pub(super) const ZERO: Self =
        Activations { scale: 0.0, sum: 0.0, correction: 0, planes: [[[0; GROUP]; GROUPS]; P] };

    /// The integers of a group.
    #[inline(always)]
    pub(super) fn integers(&self, group: usize) -> [i32; GROUP] {
        std::array::from_fn(|at| {
            let bytes = self.planes.iter().map(|plane| i32::from(plane[group][at].cast_signed()));
            bytes.fold(0, |integer, byte| 128 * integer + byte)
        })
    }
}

/// Quantises one row of activations, each 32 by themselves and otherwise as [`super::quantise`] does a row.
#[inline(always)]
pub(super) fn quantise_blocks<const P: usize>(x: &[f32], record: &mut [Activations<P>]) {
    let fill = |values: &[f32; SPAN], block: &mut Activations<P>| {
        let (scale, inverse) = scale_of(values, Activations::<P>::BITS.limit() as f32);
        let integer = |value: f32| (value * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        let mut integers = [0; SPAN];
        if inverse != 0.0 {
            integers.iter_mut().zip(values).for_each(|(q, &value)| *q = integer(value));
        }
        let sum: i32 = integers.iter().sum();
        (block.scale, block.sum) = (scale, scale * sum as f32);
        block.correction = if P == 1 { -128 * sum } else { -sum };
        match block.planes.as_mut_slice() {
            [high, low] => {
                let bytes = high.as_flattened_mut().iter_mut().zip(low.as_flattened_mut());
                for ((high, low), q) in bytes.zip(integers) {
                    (*high, *low) = ((q >> 7) as u8, (q & 127) as u8);
                }
            }
            planes => {
                let bytes = planes.as_flattened_mut().as_flattened_mut();
                bytes.iter_mut().zip(integers).for_each(|(byte, q)| *byte = q as u8);
            }
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
