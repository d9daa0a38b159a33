//! GGML's block formats, taken apart: 4-bit ones as levels of half a byte, Q8_0 as bytes.

use candle_core::quantized::GgmlDType;
use half::f16;

/// Weights of 4 bits in blocks of 32 inputs, row-major `(n, k)`: a weight is `level * scale + offset`.
#[derive(Debug, Clone, PartialEq)]
pub struct RawNibbles {
    /// `n * k` levels of 0 to 15.
    pub levels: Vec<u8>,
    /// `n * k / 32` scales. Q4_K's are products of two numbers, rounded to 16 bits; the others' are the file's own.
    pub scales: Vec<f16>,
    /// `n * k / 32` offsets, likewise.
    pub offsets: Vec<f16>,
}

/// A matrix `(n, k)` in bytes, in blocks of 32 of a row: a value is `level * scale`, to the bit what the file means.
#[derive(Debug, Clone, PartialEq)]
pub struct RawBytes {
    /// `n * k` levels.
    pub levels: Vec<i8>,
    /// `n * k / 32` scales.
    pub scales: Vec<f16>,
}

impl RawBytes {
    /// Takes the blocks of `kind` apart; `None` where that isn't Q8_0. `bytes` are whole blocks.
    pub(super) fn parse(kind: GgmlDType, bytes: &[u8]) -> Option<RawBytes> {
        if kind != GgmlDType::Q8_0 {
            return None;
        }
        let blocks = bytes.as_chunks::<34>().0;
        let mut levels = Vec::with_capacity(blocks.len() * RawNibbles::SPAN);
        blocks.iter().for_each(|block| levels.extend_from_slice(bytemuck::cast_slice(&block[2..])));
        Some(RawBytes { levels, scales: blocks.iter().map(|block| half(block, 0)).collect() })
    }
}

impl RawNibbles {
    /// Inputs that share a scale and an offset.
    pub const SPAN: usize = 32;

    /// Takes the blocks of `kind` apart; `None` where that isn't a format of 4 bits. `bytes` are whole blocks.
    pub(super) fn parse(kind: GgmlDType, bytes: &[u8]) -> Option<RawNibbles> {
        let capacity = bytes.len() / kind.type_size() * kind.block_size();
        let blocks = capacity / Self::SPAN;
        let mut raw = RawNibbles {
            levels: Vec::with_capacity(capacity),
            scales: Vec::with_capacity(blocks),
            offsets: Vec::with_capacity(blocks),
        };
        match kind {
            GgmlDType::Q4_0 => bytes.as_chunks::<18>().0.iter().for_each(|block| raw.q4_0(block)),
            GgmlDType::Q4_1 => bytes.as_chunks::<20>().0.iter().for_each(|block| raw.q4_1(block)),
            GgmlDType::Q4K => bytes.as_chunks::<144>().0.iter().for_each(|block| raw.q4_k(block)),
            _ => return None,
        }
        Some(raw)
    }

    /// A scale, then 16 bytes: levels that stand for -8 to 7.
    fn q4_0(&mut self, block: &[u8; 18]) {
        let scale = half(block, 0);
        // A power of two: exact.
        self.push(&block[2..], scale, f16::from_f32(-8.0 * scale.to_f32()));
    }

    /// A scale, an offset, then 16 bytes.
    fn q4_1(&mut self, block: &[u8; 20]) {
        self.push(&block[4..], half(block, 0), half(block, 2));
    }

    /// Two numbers that scale the block's scales and offsets, 12 bytes with eight of each in 6 bits, then 128 bytes: of each
    /// 32, the low halves are a block of 32 and the high halves the next.
    fn q4_k(&mut self, block: &[u8; 144]) {
        let (scale, offset) = (half(block, 0).to_f32(), half(block, 2).to_f32());
        let packed = &block[4..16];
        for (index, bytes) in block[16..].as_chunks::<32>().0.iter().enumerate() {
            for (half, sub) in [2 * index, 2 * index + 1].into_iter().enumerate() {
                let (by, off) = six_bits(packed, sub);
                self.levels.extend(bytes.iter().map(|byte| byte >> (4 * half) & 15));
                self.scales.push(f16::from_f32(scale * f32::from(by)));
                self.offsets.push(f16::from_f32(-offset * f32::from(off)));
            }
        }
    }

    /// Adds a block of 16 bytes: the low halves are the first 16 levels, the high halves the others.
    fn push(&mut self, bytes: &[u8], scale: f16, offset: f16) {
        self.levels.extend(bytes.iter().map(|byte| byte & 15));
        self.levels.extend(bytes.iter().map(|byte| byte >> 4));
        self.scales.push(scale);
        self.offsets.push(offset);
    }
}

fn half(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

/// The scale and the offset of sub-block `sub` of 8: the first four lie in the low 6 bits of bytes 0 to 3 and 4 to 7, of the
/// others 4 bits lie in bytes 8 to 11 and the upper two in what the first four leave.
fn six_bits(packed: &[u8], sub: usize) -> (u8, u8) {
    if sub < 4 {
        return (packed[sub] & 63, packed[sub + 4] & 63);
    }
    let low = packed[sub + 4];
    (low & 15 | packed[sub - 4] >> 6 << 4, low >> 4 | packed[sub] >> 6 << 4)
}
