//! Weights as they come from a file: row-major, one row per output, before packing.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use super::blocks::SPAN;
use super::float::Float;
use super::{Epilogue, LinearError};

/// 1.5 * 2^52. Adding it rounds to an integer, ties to even, and leaves the integer in the low bits, two's complement.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// How many bits an activation keeps when it meets weights of 4 or 8 bits: of its row's largest where the weights have a scale
/// a row, of the largest of its 32 where they have one a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationBits {
    /// -127..=127 in one int8.
    Eight,
    /// -16383..=16383 as two int8 products, `128 * h + l` with `h` in -128..=127 and `l` in 0..=127: nearly f32's result,
    /// for twice the arithmetic and the same weight traffic.
    Fifteen,
}

impl ActivationBits {
    /// The largest quantised magnitude, to which a row's largest value is mapped.
    pub(super) const fn limit(self) -> i32 {
        match self {
            ActivationBits::Eight => 127,
            ActivationBits::Fifteen => 16383,
        }
    }

    /// How many int8 values stand for one activation.
    pub(super) const fn planes(self) -> usize {
        match self {
            ActivationBits::Eight => 1,
            ActivationBits::Fifteen => 2,
        }
    }
}

/// The size of a linear map from `k` inputs to `n` outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearShape {
    /// Outputs: rows of the weight.
    pub n: usize,
    /// Inputs: columns of the weight.
    pub k: usize,
}

/// A weight matrix, (n, k) row-major, and with it the recipe by which its products are computed.
#[derive(Clone, Debug, PartialEq)]
pub enum LinearWeights {
    /// Full precision: one fused multiply-add per weight, k in order.
    F32 {
        /// (n, k)
        values: Vec<f32>,
    },
    /// As `F32`, held in 16-bit floats: their products are f32's, for half the memory.
    F16 {
        /// (n, k)
        values: Vec<f16>,
    },
    /// As `F32`, held in 16-bit floats with the range of 32.
    Bf16 {
        /// (n, k)
        values: Vec<bf16>,
    },
    /// int8 with one scale per output: exact integer sums, scaled once.
    I8 {
        /// (n, k)
        values: Vec<i8>,
        /// (n): a row's weights are `values * scale`.
        scales: Vec<f32>,
        /// How activations are quantised on their way in.
        activations: ActivationBits,
    },
    /// int8 in blocks of 32 inputs with a scale each, as GGML's Q8_0: activations have a scale a block too, a block's sum is
    /// exact, blocks are added in order.
    Blocks {
        /// (n, k)
        values: Vec<i8>,
        /// (n, k / 32, rounded up): a block's weights are `values * scale`.
        scales: Vec<f16>,
        /// How activations are quantised on their way in.
        activations: ActivationBits,
    },
    /// 4 bits in blocks of 32 inputs with a scale and an offset each, as GGML's Q4_1; otherwise as blocks.
    Nibbles {
        /// (n, k), 0 to 15
        levels: Vec<u8>,
        /// (n, k / 32, rounded up): a block's weights are `level * scale + offset`.
        scales: Vec<f16>,
        /// (n, k / 32, rounded up)
        offsets: Vec<f16>,
        /// How activations are quantised on their way in.
        activations: ActivationBits,
    },
}

impl LinearWeights {
    /// The weights as plain floats, (n, k).
    pub fn widen(&self, k: usize) -> Vec<f32> {
        let spread =
            |numbers: &[f16], index: usize| numbers[index / k * k.div_ceil(SPAN) + index % k / SPAN].to_f32();
        match self {
            LinearWeights::F32 { values } => values.clone(),
            LinearWeights::F16 { values } => wide(values),
            LinearWeights::Bf16 { values } => wide(values),
            LinearWeights::I8 { values, scales, .. } => {
                let rows = values.chunks_exact(k).zip(scales);
                rows.flat_map(|(row, scale)| row.iter().map(move |&v| f32::from(v) * scale)).collect()
            }
            LinearWeights::Blocks { values, scales, .. } => {
                values.iter().enumerate().map(|(index, &v)| f32::from(v) * spread(scales, index)).collect()
            }
            LinearWeights::Nibbles { levels, scales, offsets, .. } => {
                let wide = |(index, &level): (usize, &u8)| {
                    f32::from(level) * spread(scales, index) + spread(offsets, index)
                };
                levels.iter().enumerate().map(wide).collect()
            }
        }
    }

    /// Rounds f32 weights to int8 in blocks of 32 by each block's own largest magnitude. What a Q8_0 file holds comes back
    /// unchanged.
    ///
    /// # Errors
    /// When `values` is not (n, k), holds an infinity or a NaN, or so large a number that its scale overflows f16.
    pub fn quantise_blocks(
        values: &[f32],
        shape: LinearShape,
        activations: ActivationBits,
    ) -> Result<LinearWeights, LinearError> {
        check_values(values, shape)?;
        let mut quantised = Vec::with_capacity(values.len());
        let mut scales = Vec::with_capacity(shape.n * shape.k.div_ceil(SPAN));
        for block in values.chunks_exact(shape.k).flat_map(|row| row.chunks(SPAN)) {
            let largest = block.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let scale = f16::from_f32(largest / 127.0);
            let inverse = if scale > f16::ZERO { 1.0 / f64::from(scale) } else { 0.0 };
            // The scale may have been rounded down, so that the largest weight would come out at 128.
            let round =
                |&value: &f32| (f64::from(value) * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
            quantised.extend(block.iter().map(round));
            scales.push(scale);
        }
        let weights = LinearWeights::Blocks { values: quantised, scales, activations };
        weights.check(shape)?;
        Ok(weights)
    }

    /// Rounds f32 weights to int8, symmetric about zero, each output row by its own largest magnitude.
    ///
    /// # Errors
    /// When `values` is not (n, k) or holds an infinity or a NaN.
    pub fn quantise(
        values: &[f32],
        shape: LinearShape,
        activations: ActivationBits,
    ) -> Result<LinearWeights, LinearError> {
        check_values(values, shape)?;
        let mut quantised = Vec::with_capacity(values.len());
        let mut scales = Vec::with_capacity(shape.n);
        for row in values.chunks_exact(shape.k) {
            let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let scale = largest / 127.0;
            // In f64, where the quotient of two tiny numbers neither overflows nor loses its rounding.
            let inverse = if scale > 0.0 { 127.0 / f64::from(largest) } else { 0.0 };
            quantised.extend(row.iter().map(|&value| (f64::from(value) * inverse + ROUND).to_bits() as i8));
            scales.push(scale);
        }
        Ok(LinearWeights::I8 { values: quantised, scales, activations })
    }

    /// Checks lengths and that every number is finite.
    pub(super) fn check(&self, shape: LinearShape) -> Result<(), LinearError> {
        match self {
            LinearWeights::F32 { values } => check_values(values, shape),
            LinearWeights::F16 { values } => check_values(values, shape),
            LinearWeights::Bf16 { values } => check_values(values, shape),
            LinearWeights::I8 { values, scales, .. } => {
                check_shape(shape)?;
                check_length("weights", values.len(), shape.n * shape.k)?;
                check_length("scales", scales.len(), shape.n)?;
                check_finite("scales", scales)
            }
            LinearWeights::Blocks { values, scales, .. } => {
                check_shape(shape)?;
                check_length("weights", values.len(), shape.n * shape.k)?;
                check_columns("scales", scales, shape)
            }
            LinearWeights::Nibbles { levels, scales, offsets, .. } => {
                check_shape(shape)?;
                check_length("weights", levels.len(), shape.n * shape.k)?;
                check_columns("scales", scales, shape)?;
                check_columns("offsets", offsets, shape)?;
                match levels.iter().position(|&level| level > 15) {
                    Some(index) => Err(LinearError::Level { index, level: levels[index] }),
                    None => Ok(()),
                }
            }
        }
    }
}

/// One of several maps of the same input that are computed as one, such as q, k and v.
#[derive(Clone, Debug)]
pub struct LinearPart {
    /// The part's own size.
    pub shape: LinearShape,
    /// The part's weights, (n, k).
    pub weights: LinearWeights,
    /// The part's bias, (n); none is zero.
    pub bias: Option<Vec<f32>>,
}

impl LinearPart {
    /// The shape of all of `parts` as one map, which are those that `epilogue` is for.
    pub(super) fn shape_of(parts: &[LinearPart], epilogue: Epilogue) -> Result<LinearShape, LinearError> {
        if !epilogue.takes(parts.len()) {
            return Err(LinearError::Parts { epilogue, parts: parts.len() });
        }
        if let (Epilogue::Gated(_), [gate, up]) = (epilogue, parts)
            && gate.shape.n != up.shape.n
        {
            return Err(LinearError::MixedOutputs { gate: gate.shape.n, up: up.shape.n });
        }
        let n = parts.iter().fold(0usize, |n, part| n.saturating_add(part.shape.n));
        Ok(LinearShape { n, k: parts[0].shape.k })
    }

    /// Stacks parts with one `k` and one recipe, which are those that `epilogue` is for: their outputs follow each other in order.
    pub(super) fn stack(parts: Vec<LinearPart>, epilogue: Epilogue) -> Result<LinearPart, LinearError> {
        LinearPart::shape_of(&parts, epilogue)?;
        let mut parts = parts.into_iter();
        let mut whole = parts.next().ok_or(LinearError::Parts { epilogue, parts: 0 })?;
        whole.check()?;
        for (index, part) in parts.enumerate() {
            part.check()?;
            if part.shape.k != whole.shape.k {
                return Err(LinearError::MixedInputs {
                    part: index + 1,
                    expected: whole.shape.k,
                    got: part.shape.k,
                });
            }
            whole.append(part, index + 1)?;
        }
        Ok(whole)
    }

    /// Adds another part's outputs after this part's own.
    fn append(&mut self, part: LinearPart, index: usize) -> Result<(), LinearError> {
        match (&mut self.weights, part.weights) {
            (LinearWeights::F32 { values }, LinearWeights::F32 { values: more }) => values.extend(more),
            (LinearWeights::F16 { values }, LinearWeights::F16 { values: more }) => values.extend(more),
            (LinearWeights::Bf16 { values }, LinearWeights::Bf16 { values: more }) => values.extend(more),
            (
                LinearWeights::I8 { values, scales, activations },
                LinearWeights::I8 { values: more, scales: more_scales, activations: same },
            ) if *activations == same => {
                values.extend(more);
                scales.extend(more_scales);
            }
            (
                LinearWeights::Blocks { values, scales, activations },
                LinearWeights::Blocks { values: more, scales: more_scales, activations: same },
            ) if *activations == same => {
                values.extend(more);
                scales.extend(more_scales);
            }
            (
                LinearWeights::Nibbles { levels, scales, offsets, activations },
                LinearWeights::Nibbles {
                    levels: more,
                    scales: more_scales,
                    offsets: more_offsets,
                    activations: same,
                },
            ) if *activations == same => {
                levels.extend(more);
                scales.extend(more_scales);
                offsets.extend(more_offsets);
            }
            _ => return Err(LinearError::MixedRecipes { part: index }),
        }
        if self.bias.is_some() || part.bias.is_some() {
            let bias = self.bias.get_or_insert_with(|| vec![0.0; self.shape.n]);
            bias.extend(part.bias.unwrap_or_else(|| vec![0.0; part.shape.n]));
        }
        self.shape.n += part.shape.n;
        check_shape(self.shape)
    }

    /// Checks the part by itself.
    pub(super) fn check(&self) -> Result<(), LinearError> {
        self.weights.check(self.shape)?;
        let Some(bias) = &self.bias else { return Ok(()) };
        check_length("biases", bias.len(), self.shape.n)?;
        check_finite("biases", bias)
    }
}

/// The largest `k` for which a sum of `k` products of int8 values, each at most 2^14, fits an i32.
pub(super) const MAX_K: usize = (1 << 17) - 1;

pub(super) fn check_shape(shape: LinearShape) -> Result<(), LinearError> {
    let LinearShape { n, k } = shape;
    if n == 0 || k == 0 || k > MAX_K || n.checked_mul(k).is_none() {
        return Err(LinearError::Shape { n, k });
    }
    Ok(())
}

fn wide<F: Float>(values: &[F]) -> Vec<f32> {
    let mut wide = vec![0.0; values.len()];
    F::widen(values, &mut wide);
    wide
}

fn check_values<F: Float>(values: &[F], shape: LinearShape) -> Result<(), LinearError> {
    check_shape(shape)?;
    check_length("weights", values.len(), shape.n * shape.k)?;
    check_finite("weights", values)
}

/// A number a block of inputs.
fn check_columns(what: &'static str, numbers: &[f16], shape: LinearShape) -> Result<(), LinearError> {
    check_length(what, numbers.len(), shape.n * shape.k.div_ceil(SPAN))?;
    check_finite(what, numbers)
}

fn check_length(what: &'static str, got: usize, expected: usize) -> Result<(), LinearError> {
    if got == expected { Ok(()) } else { Err(LinearError::Length { what, expected, got }) }
}

fn check_finite<F: Float>(what: &'static str, values: &[F]) -> Result<(), LinearError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(LinearError::NotFinite { what, index, value: wide(&values[index..=index])[0] }),
        None => Ok(()),
    }
}
