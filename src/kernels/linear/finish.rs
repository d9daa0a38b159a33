//! From the sums of a block of outputs to the outputs: bias, activation or gate, and what they are added to.
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::activation::{Epilogue, activate};
use super::pack::{BLOCK, Sums};
use crate::kernels::pool::TileMut;

/// What happens to the sums of a block of outputs on their way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending<'a> {
    pub(super) bias: &'a [f32; BLOCK],
    pub(super) epilogue: Epilogue,
    /// The map's outputs a row.
    pub(super) n: usize,
    /// What the outputs are added to, (rows, n).
    pub(super) onto: Option<&'a [f32]>,
    /// The block's first output.
    pub(super) first: usize,
}

/// Finishes the sums of `rows`, one after the other, and writes them to their place in `tile`.
///
/// Inlined into a function per instruction set.
#[inline(always)]
pub(super) fn finish(
    ending: &Ending<'_>,
    sums: &mut [Sums],
    rows: Range<usize>,
    tile: &mut TileMut<'_, MaybeUninit<f32>>,
) {
    let Ending { bias, epilogue, n, onto, first } = *ending;
    let columns = first..tile.columns().end.min(first + epilogue.block_outputs());
    for (row, Sums(sums)) in rows.zip(sums) {
        let out = tile.row_mut(row, columns.clone());
        let onto = onto.map(|onto| &onto[row * n..][columns.clone()]);
        let biased = sums.iter_mut().zip(bias);
        match epilogue {
            Epilogue::Plain => write(out, onto, biased.map(|(sum, bias)| *sum + bias)),
            Epilogue::Activated(activation) => {
                biased.for_each(|(sum, bias)| *sum += bias);
                activate(activation, sums);
                write(out, onto, sums.iter().copied());
            }
            Epilogue::Gated(activation) => {
                biased.for_each(|(sum, bias)| *sum += bias);
                let (gate, up) = sums.split_at_mut(BLOCK / 2);
                activate(activation, gate);
                write(out, onto, gate.iter().zip(up).map(|(gate, up)| gate * *up));
            }
        }
    }
}

/// Writes `values`, added to what they are for.
#[inline(always)]
fn write(out: &mut [MaybeUninit<f32>], onto: Option<&[f32]>, values: impl Iterator<Item = f32>) {
    match onto {
        None => out.iter_mut().zip(values).for_each(|(out, value)| _ = out.write(value)),
        Some(onto) => {
            out.iter_mut().zip(values).zip(onto).for_each(|((out, value), onto)| _ = out.write(onto + value));
        }
    }
}
