//! The largest sums, the longest k, every number of a format.

use super::*;

/// Rows and inputs that bring out the kernels of few rows, and those of many with and without rests.
const FEW_AND_MANY: &[(usize, usize)] = unless_miri(&[(2, 4099), (7, 67), (17, 131), (49, 260)], &[(1, 35)]);

#[test]
fn extreme_integers_stay_exact() {
    // All products at their largest, of one sign, over a long k: saturating or 16-bit sums would show.
    for &(rows, k) in FEW_AND_MANY {
        for activations in [ActivationBits::Eight, ActivationBits::Fifteen] {
            for (weight, x) in [(-128, 1.0), (127, 1.0), (-128, -1.0), (127, -1.0)] {
                let (values, scales) = (vec![weight; 3 * k], vec![0.5, 1.0, -2.0]);
                let weights = LinearWeights::I8 { values, scales, activations };
                check_against_reference(&vec![x; rows * k], LinearShape { n: 3, k }, weights, None);
            }
        }
    }
}

#[test]
fn extreme_blocks_stay_exact() {
    for &(rows, k) in FEW_AND_MANY {
        let shape = LinearShape { n: 3, k };
        let numbers = |value| vec![f16::from_f32(value); 3 * k.div_ceil(32)];
        for activations in [ActivationBits::Eight, ActivationBits::Fifteen] {
            for (weight, x) in [(-128, 1.0), (127, 1.0), (-128, -1.0), (127, -1.0)] {
                let (values, scales) = (vec![weight; 3 * k], numbers(-0.5));
                let weights = LinearWeights::Blocks { values, scales, activations };
                check_against_reference(&vec![x; rows * k], shape, weights, None);
            }
            for (level, x) in [(15, 1.0), (15, -1.0), (0, 1.0)] {
                let (levels, scales, offsets) = (vec![level; 3 * k], numbers(-0.5), numbers(3.75));
                let weights = LinearWeights::Nibbles { levels, scales, offsets, activations };
                check_against_reference(&vec![x; rows * k], shape, weights, None);
            }
        }
    }
}

#[cfg_attr(miri, ignore = "takes minutes under Miri")]
#[test]
fn the_largest_k_does_not_overflow() {
    let shape = LinearShape { n: 1, k: MAX_K };
    for activations in [ActivationBits::Eight, ActivationBits::Fifteen] {
        let weights = LinearWeights::I8 { values: vec![-128; MAX_K], scales: vec![1.0], activations };
        check_against_reference(&vec![-1.0; MAX_K], shape, weights, None);
    }
}

#[cfg_attr(miri, ignore = "takes minutes under Miri")]
#[test]
fn every_short_float_is_the_number_that_it_means() {
    let finite = |wide: &f32| wide.is_finite();
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|x| finite(&x.to_f32())).collect();
    let brains: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).filter(|x| finite(&x.to_f32())).collect();
    for weights in [LinearWeights::F16 { values: halves }, LinearWeights::Bf16 { values: brains }] {
        let expected = weights.widen(1);
        let shape = LinearShape { n: expected.len(), k: 1 };
        let linear = Linear::new(shape, weights, None, pool(1)).unwrap();
        for isa in available() {
            // Its product with 1, added to zero: a negative zero becomes one without a sign.
            let found = linear.clone().with_isa(isa).unwrap().forward_rows(&[1.0], 1).unwrap();
            assert!(found == expected, "{isa:?}");
        }
    }
}
