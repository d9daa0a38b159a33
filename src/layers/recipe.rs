//! The arithmetic that a stored weight gets.

use crate::{
    backbones::weights::{RawLinear, RawNibbles},
    kernels::linear::{ActivationBits, LinearError, LinearPart, LinearShape, LinearWeights},
};

/// The arithmetic that linear maps compute with, decided once at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recipe {
    /// As stored: 8-bit checkpoints stay 8-bit; of the block formats of GGUF, Q4_0, Q4_1 and Q4_K stay 4-bit, Q8_0 stays
    /// 8-bit, the others become bytes in blocks of 32; everything else becomes f32.
    #[default]
    Stored,
    /// Everything in f32, weights of few bits widened: the exact twin to compare with.
    F32,
    /// Everything in 8-bit weights with 15-bit activations; f32 weights are rounded, an output row a scale.
    I8,
}

impl Recipe {
    /// What becomes of `raw`.
    pub(super) fn weights(self, raw: RawLinear, shape: LinearShape) -> Result<LinearWeights, LinearError> {
        Ok(match (raw, self) {
            (RawLinear::F32 { values } | RawLinear::Blocks { values }, Recipe::I8) => {
                LinearWeights::quantise(&values, shape, ActivationBits::Fifteen)?
            }
            (RawLinear::Blocks { values }, Recipe::Stored) => LinearWeights::quantise_blocks(&values, shape)?,
            (RawLinear::F32 { values } | RawLinear::Blocks { values }, _) => LinearWeights::F32 { values },
            (RawLinear::I8 { values, scales, activation_bits }, recipe) => {
                let activations =
                    if activation_bits <= 8 { ActivationBits::Eight } else { ActivationBits::Fifteen };
                let stored = LinearWeights::I8 { values, scales, activations };
                if recipe == Recipe::F32 { widened(&stored, shape) } else { stored }
            }
        })
    }
}

impl From<RawNibbles> for LinearWeights {
    fn from(raw: RawNibbles) -> Self {
        let RawNibbles { levels, scales, offsets } = raw;
        LinearWeights::Nibbles { levels, scales, offsets }
    }
}

/// Parts of one call share their recipe. Where one is in f32, blocks beside it are widened; where one is in bytes, blocks of
/// 4 bits become bytes; where one needs finer activations, all get them.
pub(super) fn same_recipe(mut parts: Vec<LinearPart>) -> Result<Vec<LinearPart>, LinearError> {
    let any = |of: fn(&LinearWeights) -> bool| parts.iter().any(|part| of(&part.weights));
    let (f32s, blocks) = (any(is_f32), any(is_blocks));
    let fine = any(is_fine);
    for LinearPart { weights, shape, .. } in &mut parts {
        match weights {
            LinearWeights::Blocks { .. } | LinearWeights::Nibbles { .. } if f32s => {
                *weights = widened(weights, *shape);
            }
            LinearWeights::Nibbles { .. } if blocks => {
                *weights = LinearWeights::quantise_blocks(&weights.widen(shape.k), *shape)?;
            }
            LinearWeights::I8 { activations, .. } if fine => *activations = ActivationBits::Fifteen,
            _ => {}
        }
    }
    Ok(parts)
}

fn widened(weights: &LinearWeights, shape: LinearShape) -> LinearWeights {
    LinearWeights::F32 { values: weights.widen(shape.k) }
}

fn is_f32(weights: &LinearWeights) -> bool {
    matches!(weights, LinearWeights::F32 { .. })
}

fn is_blocks(weights: &LinearWeights) -> bool {
    matches!(weights, LinearWeights::Blocks { .. })
}

fn is_fine(weights: &LinearWeights) -> bool {
    matches!(weights, LinearWeights::I8 { activations: ActivationBits::Fifteen, .. })
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    const SHAPE: LinearShape = LinearShape { n: 2, k: 33 };

    fn part(weights: LinearWeights) -> LinearPart {
        LinearPart { shape: SHAPE, weights, bias: None }
    }

    /// Values that 8 bits in blocks hold to within half.
    fn values() -> Vec<f32> {
        (0..66).map(|i| (i % 7) as f32 * 127.0 / 6.0).collect()
    }

    fn blocks() -> LinearPart {
        part(LinearWeights::quantise_blocks(&values(), SHAPE).unwrap())
    }

    fn nibbles() -> LinearPart {
        let numbers = |value| vec![f16::from_f32(value); 4];
        let levels = (0..66).map(|i| i % 7).collect();
        part(LinearWeights::Nibbles { levels, scales: numbers(21.0), offsets: numbers(0.5) })
    }

    #[test]
    fn parts_in_blocks_are_widened_beside_one_in_f32() {
        let plain = part(LinearWeights::F32 { values: values() });
        let parts = same_recipe(vec![blocks(), plain, nibbles()]).unwrap();
        for part in &parts {
            let LinearWeights::F32 { values: widened } = &part.weights else { panic!("{parts:?}") };
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1.0;
            assert!(widened.iter().zip(&values()).all(close), "{widened:?}");
        }
        assert_eq!(same_recipe(vec![blocks(), blocks()]).unwrap()[1].weights, blocks().weights);
        assert_eq!(same_recipe(vec![nibbles(), nibbles()]).unwrap()[1].weights, nibbles().weights);
    }

    #[test]
    fn four_bits_become_bytes_beside_bytes() {
        let parts = same_recipe(vec![nibbles(), blocks()]).unwrap();
        let wide = nibbles().weights.widen(33);
        assert_eq!(parts[0].weights, LinearWeights::quantise_blocks(&wide, SHAPE).unwrap());
        assert_eq!(parts[1].weights, blocks().weights);
    }
}
