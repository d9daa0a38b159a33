//! What the linear op computes, said plainly. Every kernel must agree with it bit for bit.
#![forbid(unsafe_code)]

use super::weights::{ActivationBits, LinearShape, LinearWeights};

/// `x` (rows, k) times the transpose of `weights` (n, k), plus `bias` (n): (rows, n).
pub(super) fn forward(
    x: &[f32],
    shape: LinearShape,
    weights: &LinearWeights,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len() / shape.k * shape.n);
    for x in x.chunks_exact(shape.k) {
        for j in 0..shape.n {
            let product = match weights {
                LinearWeights::F32 { values } => dot_f32(x, &values[j * shape.k..][..shape.k]),
                LinearWeights::F16 { values } => dot_f32(x, &values[j * shape.k..][..shape.k]),
                LinearWeights::Bf16 { values } => dot_f32(x, &values[j * shape.k..][..shape.k]),
                LinearWeights::I8 { values, scales, activations } => {
                    let (q, scale) = quantise(x, *activations);
                    let sum: i64 = q
                        .iter()
                        .zip(&values[j * shape.k..])
                        .map(|(&q, &w)| i64::from(q) * i64::from(w))
                        .sum();
                    sum as f32 * scale * scales[j]
                }
                LinearWeights::Blocks { values, scales, activations } => {
                    let blocks = x.chunks(32).zip(values[j * shape.k..][..shape.k].chunks(32));
                    let scales = &scales[j * shape.k.div_ceil(32)..];
                    blocks.zip(scales).fold(0f32, |sum, ((x, w), weight_scale)| {
                        let (q, scale) = quantise(x, *activations);
                        let exact: i32 = q.iter().zip(w).map(|(&q, &w)| q * i32::from(w)).sum();
                        (exact as f32).mul_add(weight_scale.to_f32() * scale, sum)
                    })
                }
                LinearWeights::Nibbles { levels, scales, offsets, activations } => {
                    let blocks = x.chunks(32).zip(levels[j * shape.k..][..shape.k].chunks(32));
                    let first = j * shape.k.div_ceil(32);
                    let numbers = scales[first..].iter().zip(&offsets[first..]);
                    blocks.zip(numbers).fold(0f32, |sum, ((x, levels), (weight_scale, offset))| {
                        let (q, scale) = quantise(x, *activations);
                        let exact: i32 = q.iter().zip(levels).map(|(&q, &level)| q * i32::from(level)).sum();
                        let sum = (exact as f32).mul_add(weight_scale.to_f32() * scale, sum);
                        (scale * q.iter().sum::<i32>() as f32).mul_add(offset.to_f32(), sum)
                    })
                }
            };
            out.push(product + bias.map_or(0.0, |bias| bias[j]));
        }
    }
    out
}

/// One fused multiply-add per input, in order, from zero.
fn dot_f32<F: Copy + Into<f32>>(x: &[f32], weights: &[F]) -> f32 {
    x.iter().zip(weights).fold(0.0, |sum, (&x, &w)| x.mul_add(w.into(), sum))
}

/// Activations that share a scale, as integers, and that scale.
pub(super) fn quantise(x: &[f32], bits: ActivationBits) -> (Vec<i32>, f32) {
    if x.iter().any(|value| !value.is_finite()) {
        return (vec![0; x.len()], f32::NAN);
    }
    let largest = x.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let limit = bits.limit() as f32;
    let inverse = limit / largest;
    if inverse.is_infinite() {
        return (vec![0; x.len()], 0.0);
    }
    (x.iter().map(|value| (value * inverse).round_ties_even() as i32).collect(), largest / limit)
}
