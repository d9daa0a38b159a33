//! GGML's block formats, read where they lie: 32 elements of a row share a scale.

use bytes::Bytes;
use half::f16;
use serde::{Deserialize, Serialize};

/// Elements of a row that share a scale.
pub(super) const SPAN: usize = 32;

/// A block format that a table is read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockFormat {
    /// A scale, then 32 signed bytes.
    Q8_0,
    /// A scale, then 16 bytes: levels of 0 to 15 that stand for -8 to 7.
    Q4_0,
    /// A scale, an offset, then 16 bytes: levels of 0 to 15.
    Q4_1,
}

impl BlockFormat {
    /// Bytes of 32 elements.
    pub const fn block_bytes(self) -> usize {
        match self {
            BlockFormat::Q8_0 => 34,
            BlockFormat::Q4_0 => 18,
            BlockFormat::Q4_1 => 20,
        }
    }
}

/// The rows of a table in blocks. An element is `(level * scale + offset) * factor`, rounded at each step.
#[derive(Clone)]
pub(super) struct RowBlocks {
    pub format: BlockFormat,
    /// Whole blocks, rows one behind the other.
    pub bytes: Bytes,
    pub factor: f32,
}

impl RowBlocks {
    /// Writes row `token` to `out`, whole blocks.
    pub fn copy_row(&self, token: usize, out: &mut [f32]) {
        let size = self.format.block_bytes();
        let row = &self.bytes[token * (out.len() / SPAN) * size..];
        for (block, out) in row.chunks_exact(size).zip(out.as_chunks_mut().0) {
            match self.format {
                BlockFormat::Q8_0 => self.bytes_of(half(block, 0), &block[2..], out),
                BlockFormat::Q4_0 => self.halves_of(half(block, 0), -8.0 * half(block, 0), &block[2..], out),
                BlockFormat::Q4_1 => self.halves_of(half(block, 0), half(block, 2), &block[4..], out),
            }
        }
    }

    fn bytes_of(&self, scale: f32, levels: &[u8], out: &mut [f32; SPAN]) {
        for (out, level) in out.iter_mut().zip(levels) {
            *out = (f32::from(level.cast_signed()) * scale + 0.0) * self.factor;
        }
    }

    /// The low halves are the first 16 levels, the high halves the others.
    fn halves_of(&self, scale: f32, offset: f32, bytes: &[u8], out: &mut [f32; SPAN]) {
        let (low, high) = out.split_at_mut(SPAN / 2);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            *low = (f32::from(byte & 15) * scale + offset) * self.factor;
            *high = (f32::from(byte >> 4) * scale + offset) * self.factor;
        }
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

impl std::fmt::Debug for RowBlocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowBlocks({:?}, {} bytes)", self.format, self.bytes.len())
    }
}
