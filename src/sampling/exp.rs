//! The exponential of numbers that are not positive.
//!
//! The C library's differs from platform to platform in its last bit, and is called once for each value; this one
//! is plain arithmetic, the same everywhere, and the compiler makes vector code of a loop over it.

/// Below this the result stays at exp(-87), the last before subnormal numbers: nothing, for a probability.
const LOWEST: f32 = -87.0;
/// Adding it rounds to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
/// ln 2 in two parts: the first has so few bits that its product with an exponent is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// exp(x) for x <= 0, within 2 units in the last place; exactly 1 at 0.
pub(super) fn exp(x: f32) -> f32 {
    let x = if x > LOWEST { x } else { LOWEST };
    // x = n ln 2 + r with |r| <= ln 2 / 2, and exp(x) = 2^n exp(r).
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let exp_r = series.into_iter().fold(1.0 / 5040.0, |sum, term| sum * r + term);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    exp_r * power
}

/// The sum of exp(x - max) over `row`.
pub(super) fn sum_exp(row: &[f32], max: f32) -> f64 {
    // Independent sums, for a sum that waits for the one before it can't be vector code.
    let mut sums = [0.0; 8];
    let chunks = row.chunks_exact(sums.len());
    let rest: f64 = chunks.remainder().iter().map(|&x| f64::from(exp(x - max))).sum();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += f64::from(exp(x - max)));
    }
    sums.iter().sum::<f64>() + rest
}
