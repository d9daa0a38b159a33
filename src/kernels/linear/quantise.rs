//! Activations on their way into int8 products: one dynamic scale per row.
//!
//! A row's largest magnitude maps to the limit of its bits; the rest is rounded to nearest, ties to even. A row whose
//! largest magnitude is too small for the scale's inverse (below about 5e-35) is taken as zeros. A row with an infinity or
//! a NaN gets the scale NaN, and so do its outputs: it shows, and never touches another row.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::pack::GROUP;
use super::rows::Rows;
use super::weights::ActivationBits;

/// Four activations that meet four weights of one output, each offset to be unsigned.
pub(super) type Group = [u8; GROUP];

/// The shape of quantised rows. A row is one record of its planes, each a head and its groups; the first head is the row's
/// scale.
///
/// At 8 bits the plane is `q + 128`. At 15 bits the planes are `h + 128` and `l`, for `q = 128 * h + l`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowLayout {
    groups: usize,
    pub(super) bits: ActivationBits,
}

impl RowLayout {
    pub(super) fn new(k: usize, bits: ActivationBits) -> RowLayout {
        RowLayout { groups: k.div_ceil(GROUP), bits }
    }

    /// Groups in a record.
    pub(super) fn record(self) -> usize {
        self.bits.planes() * self.plane()
    }

    /// Groups in a plane, its head among them.
    fn plane(self) -> usize {
        1 + self.groups
    }

    /// The scale of row `row` among `records`.
    pub(super) fn scale(self, records: &[Group], row: usize) -> f32 {
        f32::from_ne_bytes(records[row * self.record()])
    }

    /// The planes of `rows`, one row behind the other.
    pub(super) fn planes(self, records: &[Group], rows: Range<usize>) -> Rows<'_, Group> {
        let planes = self.bits.planes();
        Rows::without_head(records, self.plane(), rows.start * planes..rows.end * planes)
    }
}

/// 1.5 * 2^23. Adding it to a value below 2^22 in magnitude rounds that to an integer, ties to even, and leaves the integer
/// in the low bits: the same on every machine, and vectorised wherever an addition is.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Quantises one row of activations into its record.
///
/// Inlined into a function per instruction set, so that the compiler vectorises it for each; element by element it is the
/// same IEEE arithmetic everywhere.
#[inline(always)]
pub(super) fn quantise_row(x: &[f32], bits: ActivationBits, record: &mut [Group]) {
    let (scale, inverse) = scale_of(x, bits.limit() as f32);
    record[0] = scale.to_ne_bytes();
    let integer = |value: f32| (value * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
    match bits {
        ActivationBits::Eight => {
            let plane = record[1..].as_flattened_mut();
            // The padding's weights are zero, so what it holds does not matter; it is set all the same.
            plane[x.len()..].fill(0);
            if inverse == 0.0 {
                return plane.fill(128);
            }
            for (byte, &value) in plane.iter_mut().zip(x) {
                *byte = (integer(value) + 128) as u8;
            }
        }
        ActivationBits::Fifteen => {
            let (high, low) = record.split_at_mut(record.len() / 2);
            low[0] = Group::default();
            let (high, low) = (high[1..].as_flattened_mut(), low[1..].as_flattened_mut());
            high[x.len()..].fill(0);
            low[x.len()..].fill(0);
            if inverse == 0.0 {
                high.fill(128);
                return low.fill(0);
            }
            for ((high, low), &value) in high.iter_mut().zip(low.iter_mut()).zip(x) {
                let integer = integer(value);
                *high = ((integer + (128 << 7)) >> 7) as u8;
                *low = (integer & 127) as u8;
            }
        }
    }
}

/// The scale of a row and its inverse; the inverse is 0 where all activations are to become 0.
#[inline(always)]
pub(super) fn scale_of(x: &[f32], limit: f32) -> (f32, f32) {
    // Magnitudes order like their bits, and anything not finite comes above all that is.
    let largest = x.iter().fold(0i32, |largest, value| largest.max((value.to_bits() & 0x7fff_ffff) as i32));
    scale_for(f32::from_bits(largest as u32), limit)
}

/// [`scale_of`] a row whose largest magnitude is known.
#[inline(always)]
pub(super) fn scale_for(largest: f32, limit: f32) -> (f32, f32) {
    let inverse = limit / largest;
    if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if !inverse.is_finite() {
        (0.0, 0.0)
    } else {
        (largest / limit, inverse)
    }
}
