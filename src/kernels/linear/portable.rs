//! The micro-kernels in plain Rust, and the parts that every instruction set compiles for itself.

use std::mem::MaybeUninit;

pub(super) use super::activation::finish;
pub(super) use super::blocks::quantise_blocks;
use super::blocks::{Activations, GROUPS, Step};
use super::isa::{BLOCK_ROWS, ROWS};
use super::nibbles::{NibbleStep, PAIRS};
use super::pack::{BLOCK, F32Line, GROUP, I8Columns, I8Line, LANES, LINES};
use super::quantise::Group;
pub(super) use super::quantise::quantise_row;
use super::rows::Rows;

/// See [`super::isa::Kernels::sums_i8`].
pub(super) fn sums_i8(rows: Rows<'_, Group>, lines: &[I8Line], sums: &mut [[i32; BLOCK]; ROWS]) {
    for (row, sums) in rows.iter().zip(sums) {
        *sums = [0; BLOCK];
        for (group, step) in row.iter().zip(lines.chunks_exact(LINES)) {
            let weights = step.iter().flat_map(|line| line.0.as_chunks::<GROUP>().0);
            for (sum, weights) in sums.iter_mut().zip(weights) {
                let products = group.iter().zip(weights).map(|(&x, &w)| i32::from(x) * i32::from(w));
                *sum = sum.wrapping_add(products.sum());
            }
        }
    }
}

/// See [`super::isa::Kernels::sums_f32`].
pub(super) fn sums_f32(rows: Rows<'_, f32>, lines: &[F32Line], sums: &mut [[f32; BLOCK]; ROWS]) {
    for (row, sums) in rows.iter().zip(sums) {
        *sums = [0.0; BLOCK];
        for (&x, step) in row.iter().zip(lines.chunks_exact(LINES)) {
            for (sums, line) in sums.chunks_exact_mut(LANES).zip(step) {
                for (sum, &w) in sums.iter_mut().zip(&line.0) {
                    *sum = x.mul_add(w, *sum);
                }
            }
        }
    }
}

/// See [`super::isa::Kernels::sums_blocks`].
pub(super) fn sums_blocks<const P: usize>(
    rows: Rows<'_, Activations<P>>,
    steps: &[Step],
    sums: &mut [[f32; BLOCK]; BLOCK_ROWS],
) {
    for (row, sums) in rows.iter().zip(sums) {
        *sums = [0.0; BLOCK];
        for (x, step) in row.iter().zip(steps) {
            let mut products = [if P == 1 { x.correction } else { 128 * x.correction }; BLOCK];
            for (group, lines) in step.weights.iter().enumerate() {
                let integers = x.integers(group);
                let weights = lines.as_flattened().as_chunks::<GROUP>().0;
                for (sum, weights) in products.iter_mut().zip(weights) {
                    *sum += integers.iter().zip(weights).map(|(&x, &w)| x * i32::from(w)).sum::<i32>();
                }
            }
            for ((sum, product), scale) in sums.iter_mut().zip(products).zip(step.scales) {
                *sum = (product as f32).mul_add(scale.to_f32() * x.scale, *sum);
            }
        }
    }
}

/// See [`super::isa::Kernels::sums_nibbles`].
pub(super) fn sums_nibbles<const P: usize>(
    rows: Rows<'_, Activations<P>>,
    steps: &[NibbleStep],
    sums: &mut [[f32; BLOCK]; BLOCK_ROWS],
) {
    for (row, sums) in rows.iter().zip(sums) {
        *sums = [0.0; BLOCK];
        for (x, step) in row.iter().zip(steps) {
            let mut products = [0; BLOCK];
            for group in 0..GROUPS {
                let shift = group / PAIRS * 4;
                let integers = x.integers(group);
                let levels = step.levels[group % PAIRS].as_flattened().as_chunks::<GROUP>().0;
                for (sum, levels) in products.iter_mut().zip(levels) {
                    let level = |both: u8| i32::from(both >> shift & 15);
                    *sum += integers.iter().zip(levels).map(|(&x, &both)| x * level(both)).sum::<i32>();
                }
            }
            for j in 0..BLOCK {
                sums[j] = (products[j] as f32).mul_add(step.scales[j].to_f32() * x.scale, sums[j]);
                sums[j] = x.sum.mul_add(step.offsets[j].to_f32(), sums[j]);
            }
        }
    }
}

/// See [`super::isa::Kernels::add`]. Inlined into a function per instruction set.
#[inline(always)]
pub(super) fn add(a: &[f32; BLOCK], b: &[f32; BLOCK], out: &mut [MaybeUninit<f32>; BLOCK]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        out.write(a + b);
    }
}

/// See [`super::isa::Kernels::scale_i8`]. Inlined into a function per instruction set.
///
/// The sums are exact, so the one rounding on the way to f32 is the same by any route: from i32 at 8 bits, from f64, which
/// holds `128 * h + l` exactly, at 15.
#[inline(always)]
pub(super) fn scale_i8(
    sums: &[[i32; BLOCK]],
    columns: &I8Columns,
    scale: f32,
    out: &mut [MaybeUninit<f32>; BLOCK],
) {
    let I8Columns { correction, scale: weight_scale, bias } = columns;
    match sums {
        [high, low] => {
            for j in 0..BLOCK {
                let sum = f64::from(high[j].wrapping_add(correction[j])) * 128.0 + f64::from(low[j]);
                out[j].write(sum as f32 * scale * weight_scale[j] + bias[j]);
            }
        }
        [sums, ..] => {
            for j in 0..BLOCK {
                let sum = sums[j].wrapping_add(correction[j]) as f32;
                out[j].write(sum * scale * weight_scale[j] + bias[j]);
            }
        }
        [] => unreachable!("a row has a plane"),
    }
}
