//! Weights that are floats: of 32 bits, or of the 16 that a checkpoint holds.
//!
//! A weight of 16 bits is widened on its way into a product, which loses nothing: all kinds give the bits that the same numbers
//! give in f32, and the short ones take half the memory and half the reading.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::pack::{LANES, LINES};

/// The kinds of floats, for what differs by instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FloatKind {
    F32,
    F16,
    Bf16,
}

/// A float that weights are held as.
///
/// # Safety
/// `KIND` names `Self`: kernels choose by it how many bytes of a `[Self; N]` they load.
pub(super) unsafe trait Float: Pod + Send + Sync + std::fmt::Debug {
    /// Which one it is.
    const KIND: FloatKind;

    /// The same numbers in 32 bits, in a place that is as long.
    fn widen(numbers: &[Self], to: &mut [f32]);

    /// Whether it is neither infinite nor NaN.
    fn is_finite(self) -> bool;
}

// SAFETY: `KIND` names this type.
unsafe impl Float for f32 {
    const KIND: FloatKind = FloatKind::F32;

    #[inline(always)]
    fn widen(numbers: &[f32], to: &mut [f32]) {
        to.copy_from_slice(numbers);
    }

    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }
}

// SAFETY: `KIND` names this type.
unsafe impl Float for f16 {
    const KIND: FloatKind = FloatKind::F16;

    fn widen(numbers: &[f16], to: &mut [f32]) {
        numbers.convert_to_f32_slice(to);
    }

    fn is_finite(self) -> bool {
        f16::is_finite(self)
    }
}

// SAFETY: `KIND` names this type.
unsafe impl Float for bf16 {
    const KIND: FloatKind = FloatKind::Bf16;

    fn widen(numbers: &[bf16], to: &mut [f32]) {
        numbers.convert_to_f32_slice(to);
    }

    fn is_finite(self) -> bool {
        bf16::is_finite(self)
    }
}

/// One input's weights to a block of 64 outputs.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct FloatStep<F>(pub(super) [[F; LANES]; LINES]);

// SAFETY: 64 numbers fill whole multiples of the alignment, 64 bytes, so nothing lies between or behind them, and zeros are zeros.
unsafe impl<F: Float> Zeroable for FloatStep<F> {}
// SAFETY: as above, and any bits are some numbers.
unsafe impl<F: Float> Pod for FloatStep<F> {}
