//! The orders in which checkpoints store a dense layer, and the way from each to an output a row.

use crate::backbones::weights::{Floats, RawBytes, RawLinear, RawNibbles};

/// How a checkpoint stores one of the maps that are packed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// `(n, k)`, an output a row.
    Rows,
    /// `(k, n)`, as GPT-2's `Conv1D`.
    Transposed,
    /// `(n, k)`, heads of `dim` rows in which neighbours turn together under the rotary embedding, as llama.cpp stores
    /// Llama's q and k. Brought into the order in which row `i` turns with row `i + dim / 2`.
    NeighbourPairs {
        /// Rows a head.
        dim: usize,
    },
}

impl Stored {
    /// Rows of `k` values as this order means them. What is stored `(k, n)` is read by its own name.
    pub(super) fn ordered(self, raw: RawLinear, k: usize) -> RawLinear {
        let Stored::NeighbourPairs { dim } = self else { return raw };
        match raw {
            RawLinear::Floats(floats) => RawLinear::Floats(match floats {
                Floats::F32(values) => Floats::F32(part_pairs(&values, k, dim)),
                Floats::F16(values) => Floats::F16(part_pairs(&values, k, dim)),
                Floats::Bf16(values) => Floats::Bf16(part_pairs(&values, k, dim)),
            }),
            RawLinear::Blocks { values } => RawLinear::Blocks { values: part_pairs(&values, k, dim) },
            RawLinear::I8 { values, scales, activation_bits } => RawLinear::I8 {
                values: part_pairs(&values, k, dim),
                scales: part_pairs(&scales, 1, dim),
                activation_bits,
            },
        }
    }

    /// The same for weights of 4 bits.
    pub(super) fn ordered_nibbles(self, raw: RawNibbles, k: usize) -> RawNibbles {
        let Stored::NeighbourPairs { dim } = self else { return raw };
        let blocks = k / RawNibbles::SPAN;
        RawNibbles {
            levels: part_pairs(&raw.levels, k, dim),
            scales: part_pairs(&raw.scales, blocks, dim),
            offsets: part_pairs(&raw.offsets, blocks, dim),
        }
    }

    /// The same for bytes in blocks.
    pub(super) fn ordered_bytes(self, raw: RawBytes, k: usize) -> RawBytes {
        let Stored::NeighbourPairs { dim } = self else { return raw };
        let blocks = k / RawNibbles::SPAN;
        RawBytes { levels: part_pairs(&raw.levels, k, dim), scales: part_pairs(&raw.scales, blocks, dim) }
    }

    /// A bias as this order means it.
    pub(super) fn bias(self, bias: Vec<f32>) -> Vec<f32> {
        match self {
            Stored::NeighbourPairs { dim } => part_pairs(&bias, 1, dim),
            Stored::Rows | Stored::Transposed => bias,
        }
    }
}

/// `(k, n)` to `(n, k)`
pub(super) fn transposed(floats: Floats, n: usize) -> Floats {
    match floats {
        Floats::F32(values) => Floats::F32(transpose(&values, n)),
        Floats::F16(values) => Floats::F16(transpose(&values, n)),
        Floats::Bf16(values) => Floats::Bf16(transpose(&values, n)),
    }
}

fn transpose<T: Copy>(values: &[T], n: usize) -> Vec<T> {
    (0..n).flat_map(|column| values.iter().skip(column).step_by(n).copied()).collect()
}

/// Rows of `k` elements, heads of `dim` rows: first the even rows of a head, then the odd ones.
fn part_pairs<T: Copy>(values: &[T], k: usize, dim: usize) -> Vec<T> {
    let mut parted = Vec::with_capacity(values.len());
    for head in values.chunks(dim * k) {
        for parity in [0, 1] {
            head.chunks(k).skip(parity).step_by(2).for_each(|row| parted.extend_from_slice(row));
        }
    }
    parted
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn stored_orders_become_an_output_a_row() {
        assert_eq!(transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        // Two heads of four rows, two elements a row.
        let rows: Vec<usize> = (0..16).collect();
        let expected = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
        assert_eq!(part_pairs(&rows, 2, 4), expected);
        assert_eq!(part_pairs(&[0, 1, 2, 3], 1, 4), [0, 2, 1, 3]);
        let brains = |order: [f32; 4]| Floats::Bf16(order.map(bf16::from_f32).to_vec());
        let halves = |order: [f32; 4]| Floats::F16(order.map(f16::from_f32).to_vec());
        let pairs = Stored::NeighbourPairs { dim: 4 };
        for floats in [brains, halves] as [fn([f32; 4]) -> Floats; 2] {
            let (stored, expected) = (floats([0.0, 1.0, 2.0, 3.0]), floats([0.0, 2.0, 1.0, 3.0]));
            assert_eq!(
                pairs.ordered(RawLinear::Floats(stored.clone()), 1),
                RawLinear::Floats(expected.clone())
            );
            // Two rows of two.
            assert_eq!(transposed(stored, 2), expected);
        }
    }

    #[test]
    fn levels_scales_and_offsets_move_together() {
        // One head of four rows, two blocks a row; a row's number is its level, its scale and its offset.
        let rows = |each: usize| (0..4).flat_map(move |row| std::iter::repeat_n(row, each));
        let numbers = || rows(2).map(|row| f16::from_f32(row as f32)).collect::<Vec<_>>();
        let raw = RawNibbles {
            levels: rows(64).map(|row| row as u8).collect(),
            scales: numbers(),
            offsets: numbers(),
        };
        let found = Stored::NeighbourPairs { dim: 4 }.ordered_nibbles(raw.clone(), 64);
        for (place, row) in [0, 2, 1, 3].into_iter().enumerate() {
            assert_eq!(found.levels[place * 64..][..64], [row; 64]);
            assert_eq!(found.scales[place * 2..][..2], [f16::from_f32(row.into()); 2]);
            assert_eq!(found.offsets[place * 2..][..2], [f16::from_f32(row.into()); 2]);
        }
        assert_eq!(Stored::Rows.ordered_nibbles(raw.clone(), 64), raw);
        let levels = raw.levels.iter().map(|&level| level.cast_signed()).collect();
        let raw = RawBytes { levels, scales: raw.scales };
        let bytes = Stored::NeighbourPairs { dim: 4 }.ordered_bytes(raw, 64);
        assert_eq!(bytes.levels, found.levels.iter().map(|&level| level.cast_signed()).collect::<Vec<_>>());
        assert_eq!(bytes.scales, found.scales);
    }
}
