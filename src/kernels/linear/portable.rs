//! The micro-kernels in plain Rust, and the parts that every instruction set compiles for itself.
#![forbid(unsafe_code)]

pub(super) use super::blocks::quantise_step;
use super::blocks::{Activations, GROUPS, Step};
pub(super) use super::finish::finish;
use super::float::{Float, FloatStep};
use super::nibbles::{NibbleStep, PAIRS};
use super::pack::{BLOCK, GROUP, I8Columns, I8Line, LINES, Sums};
use super::quantise::Group;
pub(super) use super::quantise::quantise_row;
use super::rows::{Columns, Rows};

/// See [`super::isa::Kernels::sums_i8`].
pub(super) fn sums_i8(rows: Rows<'_, Group>, lines: &[I8Line], _next: &[I8Line], sums: &mut [[i32; BLOCK]]) {
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

/// Inputs whose weights are widened together, for all rows.
const WIDENED: usize = 16;

/// See [`super::isa::Kernels::sums_floats`].
pub(super) fn sums_floats<F: Float>(rows: Rows<'_, f32>, steps: &[FloatStep<F>], sums: &mut [Sums]) {
    let sums = &mut sums[..rows.count()];
    sums.fill(Sums::ZERO);
    let mut wide = [[0.0; BLOCK]; WIDENED];
    for (index, steps) in steps.chunks(WIDENED).enumerate() {
        for (wide, FloatStep(weights)) in wide.iter_mut().zip(steps) {
            F::widen(weights.as_flattened(), wide);
        }
        for (row, Sums(sums)) in rows.iter().zip(&mut *sums) {
            let inputs = &row[index * WIDENED..][..steps.len()];
            for (&x, weights) in inputs.iter().zip(&wide) {
                sums.iter_mut().zip(weights).for_each(|(sum, &weight)| *sum = x.mul_add(weight, *sum));
            }
        }
    }
}

/// See [`super::isa::Kernels::sums_blocks`].
pub(super) fn sums_blocks<const P: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[Step],
    sums: &mut [Sums],
) {
    for (row, sums) in sums[..rows.count()].iter_mut().enumerate() {
        *sums = Sums::ZERO;
        for (x, step) in rows.row(row, steps.len()).zip(steps) {
            let mut products = [if P == 1 { x.correction } else { 128 * x.correction }; BLOCK];
            for (group, lines) in step.weights.iter().enumerate() {
                let integers = x.integers(group);
                let weights = lines.as_flattened().as_chunks::<GROUP>().0;
                for (sum, weights) in products.iter_mut().zip(weights) {
                    *sum += integers.iter().zip(weights).map(|(&x, &w)| x * i32::from(w)).sum::<i32>();
                }
            }
            for ((sum, product), scale) in sums.0.iter_mut().zip(products).zip(step.scales) {
                *sum = (product as f32).mul_add(scale.to_f32() * x.scale, *sum);
            }
        }
    }
}

/// See [`super::isa::Kernels::sums_nibbles`].
pub(super) fn sums_nibbles<const P: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[NibbleStep],
    sums: &mut [Sums],
) {
    for (row, sums) in sums[..rows.count()].iter_mut().enumerate() {
        *sums = Sums::ZERO;
        for (x, step) in rows.row(row, steps.len()).zip(steps) {
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
            let numbers = step.scales.iter().zip(&step.offsets);
            for ((sum, product), (scale, offset)) in sums.0.iter_mut().zip(products).zip(numbers) {
                *sum = (product as f32).mul_add(scale.to_f32() * x.scale, *sum);
                *sum = x.sum.mul_add(offset.to_f32(), *sum);
            }
        }
    }
}

/// See [`super::isa::Kernels::scale_i8`]. Inlined into a function per instruction set.
///
/// The sums are exact, so the one rounding on the way to f32 is the same by any route: from i32 at 8 bits, from f64, which
/// holds `128 * h + l` exactly, at 15.
#[inline(always)]
pub(super) fn scale_i8(sums: &[[i32; BLOCK]], columns: &I8Columns, scale: f32, out: &mut Sums) {
    let I8Columns { correction, scale: weight_scale, .. } = columns;
    match sums {
        [high, low] => {
            for j in 0..BLOCK {
                let sum = f64::from(high[j].wrapping_add(correction[j])) * 128.0 + f64::from(low[j]);
                out.0[j] = sum as f32 * scale * weight_scale[j];
            }
        }
        [sums, ..] => {
            for j in 0..BLOCK {
                let sum = sums[j].wrapping_add(correction[j]) as f32;
                out.0[j] = sum * scale * weight_scale[j];
            }
        }
        [] => unreachable!("a row has a plane"),
    }
}
