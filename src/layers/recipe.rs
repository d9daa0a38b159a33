//! The arithmetic that a stored weight gets.

use std::mem::discriminant;

use crate::{
    backbones::weights::{Floats, RawBytes, RawLinear, RawNibbles},
    kernels::linear::{ActivationBits, LinearError, LinearPart, LinearShape, LinearWeights},
};

/// The arithmetic that linear maps compute with, decided once at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recipe {
    /// As stored: 8-bit checkpoints stay 8-bit; of the block formats of GGUF, Q4_0, Q4_1 and Q4_K stay 4-bit, Q8_0 stays
    /// 8-bit, the others become bytes in blocks of 32, all of them with 8-bit activations but for logits; floats
    /// stay as they are, and compute in f32.
    #[default]
    Stored,
    /// As stored, with 15-bit activations where the weights are in blocks: nearly the result of `F32`.
    Fine,
    /// Everything computes in f32, weights of few bits widened: the exact twin to compare with.
    F32,
    /// Everything in 8-bit weights with 15-bit activations; floats are rounded, an output row a scale.
    I8,
}

impl Recipe {
    /// The activations of a map in blocks where `usual` would do.
    pub(super) fn activations(self, usual: ActivationBits) -> ActivationBits {
        if self == Recipe::Fine { ActivationBits::Fifteen } else { usual }
    }

    /// What becomes of `raw`. `activations` are those that block formats get; other formats say themselves.
    pub(super) fn weights(
        self,
        raw: RawLinear,
        shape: LinearShape,
        activations: ActivationBits,
    ) -> Result<LinearWeights, LinearError> {
        Ok(match (raw, self) {
            (RawLinear::Floats(floats), Recipe::I8) => {
                LinearWeights::quantise(&floats.widened(), shape, ActivationBits::Fifteen)?
            }
            (RawLinear::Floats(floats), _) => floats.into(),
            (RawLinear::Blocks { values }, Recipe::I8) => {
                LinearWeights::quantise(&values, shape, ActivationBits::Fifteen)?
            }
            (RawLinear::Blocks { values }, Recipe::Stored | Recipe::Fine) => {
                LinearWeights::quantise_blocks(&values, shape, activations)?
            }
            (RawLinear::Blocks { values }, Recipe::F32) => LinearWeights::F32 { values },
            (RawLinear::I8 { values, scales, activation_bits }, recipe) => {
                let activations =
                    if activation_bits <= 8 { ActivationBits::Eight } else { ActivationBits::Fifteen };
                let stored = LinearWeights::I8 { values, scales, activations };
                if recipe == Recipe::F32 { widened(&stored, shape) } else { stored }
            }
        })
    }
}

impl From<Floats> for LinearWeights {
    fn from(floats: Floats) -> Self {
        match floats {
            Floats::F32(values) => Self::F32 { values },
            Floats::F16(values) => Self::F16 { values },
            Floats::Bf16(values) => Self::Bf16 { values },
        }
    }
}

/// Weights of 4 bits as they are.
pub(super) fn nibbles(raw: RawNibbles, activations: ActivationBits) -> LinearWeights {
    let RawNibbles { levels, scales, offsets } = raw;
    LinearWeights::Nibbles { levels, scales, offsets, activations }
}

/// Weights of bytes in blocks as they are.
pub(super) fn bytes(raw: RawBytes, activations: ActivationBits) -> LinearWeights {
    LinearWeights::Blocks { values: raw.levels, scales: raw.scales, activations }
}

/// Parts of one call share their recipe. Where one is in floats, blocks beside it are widened, and so are short floats beside what
/// is held otherwise; where one is in bytes, blocks of 4 bits become bytes; where a part in bytes with a scale a row needs finer
/// activations, all such parts get them.
pub(super) fn same_recipe(mut parts: Vec<LinearPart>) -> Result<Vec<LinearPart>, LinearError> {
    let any = |of: fn(&LinearWeights) -> bool| parts.iter().any(|part| of(&part.weights));
    let (floats, bytes, fine) = (any(is_floats), any(is_bytes_in_blocks), any(is_fine));
    let alike = parts.windows(2).all(|pair| discriminant(&pair[0].weights) == discriminant(&pair[1].weights));
    for LinearPart { weights, shape, .. } in &mut parts {
        match weights {
            LinearWeights::Blocks { .. } | LinearWeights::Nibbles { .. } if floats => {
                *weights = widened(weights, *shape);
            }
            LinearWeights::F16 { .. } | LinearWeights::Bf16 { .. } if !alike => {
                *weights = widened(weights, *shape);
            }
            &mut LinearWeights::Nibbles { activations, .. } if bytes => {
                *weights = LinearWeights::quantise_blocks(&weights.widen(shape.k), *shape, activations)?;
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

fn is_floats(weights: &LinearWeights) -> bool {
    matches!(weights, LinearWeights::F32 { .. } | LinearWeights::F16 { .. } | LinearWeights::Bf16 { .. })
}

fn is_bytes_in_blocks(weights: &LinearWeights) -> bool {
    matches!(weights, LinearWeights::Blocks { .. })
}

fn is_fine(weights: &LinearWeights) -> bool {
    matches!(weights, LinearWeights::I8 { activations: ActivationBits::Fifteen, .. })
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

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
        part(LinearWeights::quantise_blocks(&values(), SHAPE, ActivationBits::Eight).unwrap())
    }

    fn nibbles() -> LinearPart {
        let numbers = |value| vec![f16::from_f32(value); 4];
        let levels = (0..66).map(|i| i % 7).collect();
        let (scales, offsets, activations) = (numbers(21.0), numbers(0.5), ActivationBits::Eight);
        part(LinearWeights::Nibbles { levels, scales, offsets, activations })
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
    fn short_floats_stay_so_among_themselves() {
        let short = || part(LinearWeights::Bf16 { values: vec![bf16::from_f32(0.75); 66] });
        let half = || part(LinearWeights::F16 { values: vec![f16::from_f32(0.75); 66] });
        assert_eq!(same_recipe(vec![short(), short()]).unwrap()[1].weights, short().weights);
        for other in [half(), part(LinearWeights::F32 { values: values() }), blocks()] {
            for parts in [vec![short(), other.clone()], vec![other, short()]] {
                let parts = same_recipe(parts).unwrap();
                assert!(
                    parts.iter().all(|part| matches!(part.weights, LinearWeights::F32 { .. })),
                    "{parts:?}"
                );
                let wide = LinearWeights::F32 { values: vec![0.75; 66] };
                assert!(parts.iter().any(|part| part.weights == wide), "{parts:?}");
            }
        }
    }

    #[test]
    fn four_bits_become_bytes_beside_bytes() {
        let parts = same_recipe(vec![nibbles(), blocks()]).unwrap();
        let wide = nibbles().weights.widen(33);
        let bytes = LinearWeights::quantise_blocks(&wide, SHAPE, ActivationBits::Eight).unwrap();
        assert_eq!(parts[0].weights, bytes);
        assert_eq!(parts[1].weights, blocks().weights);
    }
}
