//! Weights in blocks of 32 inputs with a scale each, and activations on their way to them.
//!
//! An output is `sum over blocks, in order, of block_sum * (block_scale * activation_scale) + bias`, the sum over blocks by fused
//! multiply-adds from zero. Each 32 activations have a scale of their own, so that one outlier costs only its neighbours
//! precision, and 8 or 15 bits: at 15 they are `128 * h + l` with `h` and `l` in signed bytes. A block's sum of products is
//! exact. Weights are offset by 128 to be unsigned, which the block's sum of activations makes good.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::memory::Memory;
use super::pack::{BLOCK, GROUP, LINES};
use super::quantise::{Group, ROUND, scale_of};
use super::rows::Rows;
use super::weights::ActivationBits;

/// Inputs that share a scale.
pub(super) const SPAN: usize = 32;
/// Groups of inputs in a block.
pub(super) const GROUPS: usize = SPAN / GROUP;

/// Weights of a step in bytes without a sign, by group of inputs: line `p` holds outputs `16 p..16 p + 16`, and of each its four inputs.
pub(super) type StepWeights = [[[u8; 64]; LINES]; GROUPS];

/// The next 32 inputs of 64 outputs.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Step {
    /// Weights plus 128.
    pub(super) weights: StepWeights,
    /// A scale an output.
    pub(super) scales: [f16; BLOCK],
}

impl Step {
    pub(super) const EMPTY: Step = Step { weights: [[[128; 64]; LINES]; GROUPS], scales: [f16::ZERO; BLOCK] };

    /// Puts up to 32 weights into the place of output `column`.
    pub(super) fn put(&mut self, column: usize, weights: &[i8]) {
        let (line, lane) = (column / (BLOCK / LINES), column % (BLOCK / LINES));
        for (group, weights) in self.weights.iter_mut().zip(weights.chunks(GROUP)) {
            let places = &mut group[line][lane * GROUP..];
            places.iter_mut().zip(weights).for_each(|(place, &w)| *place = w.cast_unsigned() ^ 0x80);
        }
    }
}

/// Packed weights: of each 64 outputs the steps over all inputs, and the biases.
#[derive(Debug)]
pub(super) struct PackedSteps<S> {
    pub(super) steps: Memory<S>,
    pub(super) bias: Vec<[f32; BLOCK]>,
    pub(super) activations: ActivationBits,
}

impl<S: Pod> PackedSteps<S> {
    /// How many blocks of outputs there are.
    pub(super) fn blocks(&self) -> usize {
        self.bias.len()
    }

    /// The steps of a block of outputs, and its bias.
    pub(super) fn block(&self, block: usize) -> (&[S], &[f32; BLOCK]) {
        let len = self.steps.len() / self.bias.len();
        (&self.steps[block * len..(block + 1) * len], &self.bias[block])
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
    pub(super) const BITS: ActivationBits = match P {
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

/// Quantises inputs `32 step..32 step + 32` of `rows`, one record a row; otherwise as [`super::quantise`] does a whole row.
///
/// Inlined into a function per instruction set, as all that it calls.
#[inline(always)]
pub(super) fn quantise_step<const P: usize>(
    rows: Rows<'_, f32>,
    step: usize,
    records: &mut [Activations<P>],
) {
    quantise_spans(rows, step, records, quantise_span);
}

/// The same by `quantise`, which does 32 inputs.
#[inline(always)]
pub(super) fn quantise_spans<const P: usize>(
    rows: Rows<'_, f32>,
    step: usize,
    records: &mut [Activations<P>],
    quantise: impl Fn(&[f32; SPAN], &mut Activations<P>),
) {
    for (row, record) in rows.iter().zip(records) {
        let values = &row[step * SPAN..];
        match values.first_chunk() {
            Some(values) => quantise(values, record),
            None => {
                let mut padded = [0.0; SPAN];
                padded[..values.len()].copy_from_slice(values);
                quantise(&padded, record);
            }
        }
    }
}

#[inline(always)]
pub(super) fn quantise_span<const P: usize>(values: &[f32; SPAN], record: &mut Activations<P>) {
    let (scale, inverse) = scale_of(values, Activations::<P>::BITS.limit() as f32);
    let mut integers = [0; SPAN];
    if inverse != 0.0 {
        for (q, value) in integers.iter_mut().zip(values) {
            *q = (value * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        }
    }
    let sum: i32 = integers.iter().sum();
    (record.scale, record.sum) = (scale, scale * sum as f32);
    record.correction = if P == 1 { -128 * sum } else { -sum };
    for (plane, bytes) in record.planes.iter_mut().enumerate() {
        let last = plane + 1 == P;
        for (byte, q) in bytes.as_flattened_mut().iter_mut().zip(integers) {
            *byte = match (P, last) {
                (1, _) => q as u8,
                (_, true) => (q & 127) as u8,
                (_, false) => (q >> 7) as u8,
            };
        }
    }
}
