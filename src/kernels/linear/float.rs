//! Weights that are floats: of 32 bits, or of the 16 that a checkpoint holds.
//!
//! A weight of 16 bits is widened on its way into a product, which loses nothing: all kinds give the bits that the same numbers
//! give in f32, and the short ones take half the memory and half the reading.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use super::pack::{LANES, LINES};

/// The kinds of floats, for what differs by instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FloatKind {
    F32,
    F16,
    Bf16,
}

/// A float that weights are held as.
pub(super) trait Float: Pod + Send + Sync + std::fmt::Debug {
    /// Which one it is.
    const KIND: FloatKind;

    /// The same number in 32 bits.
    fn widen(self) -> f32;
}

impl Float for f32 {
    const KIND: FloatKind = FloatKind::F32;

    fn widen(self) -> f32 {
        self
    }
}

impl Float for f16 {
    const KIND: FloatKind = FloatKind::F16;

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Float for bf16 {
    const KIND: FloatKind = FloatKind::Bf16;

    fn widen(self) -> f32 {
        self.to_f32()
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
