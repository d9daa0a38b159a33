//! Weights of 4 bits in blocks of 32 inputs with a scale and an offset each, as GGML's Q4_0, Q4_1 and Q4_K.
//!
//! A weight is `level * scale + offset`, so a block of activations x gives `sum(x * level) * scale + sum(x) * offset`: two
//! fused multiply-adds an output, in this order, from zero over the blocks in order. Activations are those of
//! [`super::blocks`], and the sum of products is exact as there. Levels stay in half a byte up to the registers: a step that is
//! bound by reading weights takes 5 bits of each, where bytes take 8.5.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::blocks::GROUPS;
use super::pack::{BLOCK, GROUP, LINES};

/// Groups of inputs that share their bytes: group `p` in the low halves, group `p + PAIRS` in the high ones.
pub(super) const PAIRS: usize = GROUPS / 2;

/// The next 32 inputs of 64 outputs.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct NibbleStep {
    /// Levels by pair of groups: line `l` holds outputs `16 l..16 l + 16`, and of each its four inputs of both groups.
    pub(super) levels: [[[u8; 64]; LINES]; PAIRS],
    /// A scale an output.
    pub(super) scales: [f16; BLOCK],
    /// An offset an output.
    pub(super) offsets: [f16; BLOCK],
}

impl NibbleStep {
    /// Puts the levels of up to 32 inputs into the place of output `column`.
    pub(super) fn put(&mut self, column: usize, levels: &[u8]) {
        let (line, lane) = (column / (BLOCK / LINES), column % (BLOCK / LINES));
        for (group, levels) in levels.chunks(GROUP).enumerate() {
            let places = &mut self.levels[group % PAIRS][line][lane * GROUP..];
            let shift = group / PAIRS * 4;
            places.iter_mut().zip(levels).for_each(|(place, &level)| *place |= level << shift);
        }
    }
}
