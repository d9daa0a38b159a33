//! The random numbers: SplitMix64 (Steele, Lea and Flood 2014), read at a position instead of in sequence.
//!
//! The algorithm is fixed here and not taken from a library, so that a seed gives the same text in every release
//! and on every platform. Each token has a number of its own, a function of the seed and the position: whether a
//! sequence was preempted or batched otherwise can't shift it.

/// The increment of SplitMix64: 2^64 over the golden ratio, made odd.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// 64 random bits for the token at `position` of the output.
pub(super) fn uniform(seed: u64, position: u64) -> u64 {
    // Mixing the seed first keeps the streams of seeds 1, 2, 3, … (the choices of one request) apart.
    mix(mix(seed).wrapping_add(GAMMA.wrapping_mul(position.wrapping_add(1))))
}

/// SplitMix64's output function.
fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
