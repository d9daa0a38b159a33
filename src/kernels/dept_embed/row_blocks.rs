//! Rows of a table, read where they lie, 32 elements at a time: GGML's block formats, in which these share a scale, and 16-bit floats.

use bytes::Bytes;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use serde::{Deserialize, Serialize};

/// Elements of a row that are read together.
pub(super) const SPAN: usize = RowFormat::SPAN;

/// A format that a table is read in, 32 elements of a row at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowFormat {
    /// A scale, then 32 signed bytes.
    Q8_0,
    /// A scale, then 16 bytes: levels of 0 to 15 that stand for -8 to 7.
    Q4_0,
    /// A scale, an offset, then 16 bytes: levels of 0 to 15.
    Q4_1,
    /// 16-bit floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
}

impl RowFormat {
    /// Elements of a block, of which rows are a whole number.
    pub const SPAN: usize = 32;

    /// Bytes of 32 elements.
    pub const fn block_bytes(self) -> usize {
        match self {
            RowFormat::Q8_0 => 34,
            RowFormat::Q4_0 => 18,
            RowFormat::Q4_1 => 20,
            RowFormat::F16 | RowFormat::Bf16 => 64,
        }
    }
}

/// The rows of a table in blocks. An element is `(level * scale + offset) * factor`, rounded at each step, or `float * factor`.
#[derive(Clone)]
pub(super) struct RowBlocks {
    pub format: RowFormat,
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
                RowFormat::Q8_0 => self.bytes_of(half(block, 0), &block[2..], out),
                RowFormat::Q4_0 => self.halves_of(half(block, 0), -8.0 * half(block, 0), &block[2..], out),
                RowFormat::Q4_1 => self.halves_of(half(block, 0), half(block, 2), &block[4..], out),
                RowFormat::F16 => self.floats_of(block, f16::from_le_bytes, out),
                RowFormat::Bf16 => self.floats_of(block, bf16::from_le_bytes, out),
            }
        }
    }

    fn bytes_of(&self, scale: f32, levels: &[u8], out: &mut [f32; SPAN]) {
        for (out, level) in out.iter_mut().zip(levels) {
            *out = (f32::from(level.cast_signed()) * scale + 0.0) * self.factor;
        }
    }

    fn floats_of<F: Copy + Default>(&self, block: &[u8], float: fn([u8; 2]) -> F, out: &mut [f32; SPAN])
    where
        [F]: HalfFloatSliceExt,
    {
        let mut floats = [F::default(); SPAN];
        floats.iter_mut().zip(block.as_chunks().0).for_each(|(to, bytes)| *to = float(*bytes));
        floats.convert_to_f32_slice(out);
        out.iter_mut().for_each(|value| *value *= self.factor);
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
