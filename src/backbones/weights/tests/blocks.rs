//! Formats of 4 bits, taken apart, are what candle widens them to.

use candle_core::quantized::GgmlDType;
use half::f16;
use proptest::prelude::*;

use super::super::{Format, RawBytes, RawNibbles};
use crate::kernels::dept_embed::{EmbeddingTable, RowFormat};

fn widened(raw: &RawNibbles) -> Vec<f32> {
    let numbers = raw.scales.iter().zip(&raw.offsets);
    let blocks = raw.levels.chunks(RawNibbles::SPAN).zip(numbers);
    blocks
        .flat_map(|(levels, (scale, offset))| {
            levels.iter().map(move |&level| f32::from(level) * scale.to_f32() + offset.to_f32())
        })
        .collect()
}

/// Blocks of any bytes whose leading numbers, `halves` of them, are `numbers` in turn.
fn blocks(kind: GgmlDType, halves: usize, bytes: &[u8], numbers: [f32; 2]) -> Vec<u8> {
    let mut blocks = bytes[..bytes.len() / kind.type_size() * kind.type_size()].to_vec();
    for block in blocks.chunks_exact_mut(kind.type_size()) {
        for (place, number) in block.chunks_exact_mut(2).zip(numbers).take(halves) {
            place.copy_from_slice(&f16::from_f32(number).to_le_bytes());
        }
    }
    blocks
}

proptest! {
    #[test]
    fn four_bit_formats_widen_to_the_same(
        bytes in prop::collection::vec(any::<u8>(), 288..600),
        numbers in [-2.0f32..2.0, -2.0f32..2.0],
    ) {
        for (kind, halves, off) in [(GgmlDType::Q4_0, 1, 0.0), (GgmlDType::Q4_1, 2, 0.0), (GgmlDType::Q4K, 2, 4.9e-4)] {
            let blocks = blocks(kind, halves, &bytes, numbers);
            let len = blocks.len() / kind.type_size() * kind.block_size();
            let raw = RawNibbles::parse(kind, &blocks).unwrap();
            prop_assert_eq!((raw.levels.len(), raw.scales.len(), raw.offsets.len()), (len, len / 32, len / 32));
            let expected = Format::Ggml(kind).to_floats(&blocks, &[1, len]).unwrap().widened();
            for (index, (found, expected)) in widened(&raw).iter().zip(&expected).enumerate() {
                // Q4_K's scales and offsets are rounded to 16 bits each: half of 2^-10 of their own size.
                let size = 15.0 * raw.scales[index / 32].to_f32().abs() + raw.offsets[index / 32].to_f32().abs();
                prop_assert!((found - expected).abs() <= off * size + 1e-6 * off, "{:?}: {} {}", kind, found, expected);
            }
        }
    }
}

proptest! {
    #[test]
    fn blocks_of_a_table_are_to_the_bit_what_candle_widens(
        bytes in prop::collection::vec(any::<u8>(), 100..600),
        numbers in [-2.0f32..2.0, -2.0f32..2.0],
    ) {
        for (kind, halves, format) in [
            (GgmlDType::Q4_0, 1, RowFormat::Q4_0),
            (GgmlDType::Q4_1, 2, RowFormat::Q4_1),
            (GgmlDType::Q8_0, 1, RowFormat::Q8_0),
        ] {
            let blocks = blocks(kind, halves, &bytes, numbers);
            let len = blocks.len() / kind.type_size() * kind.block_size();
            let expected = Format::Ggml(kind).to_floats(&blocks, &[1, len]).unwrap().widened();
            let table = EmbeddingTable::blocks(1, len, format, blocks.clone().into()).unwrap();
            let mut row = vec![0.0; len];
            table.copy_row(0, &mut row);
            prop_assert_eq!(&row, &expected);
            let Some(RawBytes { levels, scales }) = RawBytes::parse(kind, &blocks) else { continue };
            let values = levels.iter().enumerate().map(|(at, &level)| f32::from(level) * scales[at / 32].to_f32());
            prop_assert_eq!(values.collect::<Vec<_>>(), expected);
        }
    }
}

#[test]
fn other_formats_are_not_blocks_of_bytes() {
    for kind in [GgmlDType::Q4_0, GgmlDType::Q4K, GgmlDType::Q5_1, GgmlDType::Q6K] {
        assert_eq!(RawBytes::parse(kind, &vec![0; kind.type_size()]), None);
    }
}

#[test]
fn other_formats_are_not_of_four_bits() {
    for kind in [GgmlDType::Q8_0, GgmlDType::Q5_1, GgmlDType::Q6K, GgmlDType::Q2K] {
        assert_eq!(RawNibbles::parse(kind, &vec![0; kind.type_size()]), None);
    }
}
