//! The instruction sets with micro-kernels of their own, and the choice among them at run time.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::blocks::{Activations, Step};
use super::finish::Ending;
use super::float::{Float, FloatStep};
use super::nibbles::NibbleStep;
use super::pack::{BLOCK, I8Columns, I8Line, Sums};
use super::portable;
use super::quantise::Group;
use super::rows::{Columns, Rows};
use super::weights::ActivationBits;
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512};
use crate::kernels::pool::TileMut;

/// An instruction set with micro-kernels of its own. All of them give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust, for any machine.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, DQ, VL) and its VNNI integer products.
    Avx512Vnni,
    /// The same with AMX's tiles of int8 products, on Linux.
    Amx,
}

impl Isa {
    /// Every instruction set; the last that a machine has is the one to take.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512Vnni, Isa::Amx];

    /// Its name in options and logs.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512Vnni => "avx512",
            Isa::Amx => "amx",
        }
    }

    /// The fastest of this machine.
    pub fn fastest() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// Whether this machine has it and lets the process use it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => amx::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512Vnni | Isa::Amx => false,
        }
    }
}

/// Rows of activations that a micro-kernel of int8 or float weights takes at once; a row of 15 bits counts twice.
pub(super) const ROWS: usize = 6;

/// The same where int8 products are made in tiles: two tiles of rows.
pub(super) const AMX_ROWS: usize = 32;

/// Rows of one byte an activation that weights in blocks meet side by side; these kernels take any number in turn.
pub(super) const STEP_ROWS: usize = 6;

/// The micro-kernels of an instruction set that this machine is known to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels(Isa);

/// Calls the kernel `$name` of the chosen instruction set.
macro_rules! dispatch {
    ($kernels:expr, $name:ident($($argument:expr),*)) => {
        match $kernels.0 {
            Isa::Portable => portable::$name($($argument),*),
            // SAFETY: a `Kernels` holds only an instruction set that `is_available` has found on this machine.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::$name($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => unsafe { avx512::$name($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => unsafe { amx::$name($($argument),*) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512Vnni | Isa::Amx => unreachable!("never available off x86-64"),
        }
    };
}

impl Kernels {
    /// The kernels of `isa`, if this machine has it.
    pub(super) fn of(isa: Isa) -> Option<Kernels> {
        isa.is_available().then_some(Kernels(isa))
    }

    /// The fastest kernels of this machine.
    pub(super) fn fastest() -> Kernels {
        Kernels(Isa::fastest())
    }

    pub(super) fn isa(self) -> Isa {
        self.0
    }

    /// Rows of activations that [`Kernels::sums_i8`] takes at once; a row of 15 bits counts twice.
    pub(super) fn rows_i8(self) -> usize {
        match self.0 {
            Isa::Amx => AMX_ROWS,
            Isa::Portable | Isa::Avx2 | Isa::Avx512Vnni => ROWS,
        }
    }

    /// Rows by whose multiples weights in blocks are best met.
    pub(super) fn rows_steps(self) -> usize {
        match self.0 {
            Isa::Amx => AMX_ROWS / 2,
            Isa::Portable | Isa::Avx2 | Isa::Avx512Vnni => STEP_ROWS,
        }
    }

    /// Sums over k of at most [`Kernels::rows_i8`] rows of unsigned activations with a block's weights, modulo 2^32. Meanwhile the lines
    /// `next` may be fetched from memory.
    pub(super) fn sums_i8(
        self,
        rows: Rows<'_, Group>,
        lines: &[I8Line],
        next: &[I8Line],
        sums: &mut [[i32; BLOCK]],
    ) {
        dispatch!(self, sums_i8(rows, lines, next, sums));
    }

    /// Sums over k, in order, of at most [`ROWS`] rows with a block's weights.
    pub(super) fn sums_floats<F: Float>(
        self,
        rows: Rows<'_, f32>,
        steps: &[FloatStep<F>],
        sums: &mut [Sums],
    ) {
        dispatch!(self, sums_floats(rows, steps, sums));
    }

    /// Scaled sums over k of any number of rows with a block of outputs, see [`super::blocks`].
    pub(super) fn sums_blocks<const P: usize>(
        self,
        rows: Columns<'_, Activations<P>>,
        steps: &[Step],
        sums: &mut [Sums],
    ) {
        dispatch!(self, sums_blocks(rows, steps, sums));
    }

    /// The same with 4-bit weights, see [`super::nibbles`].
    pub(super) fn sums_nibbles<const P: usize>(
        self,
        rows: Columns<'_, Activations<P>>,
        steps: &[NibbleStep],
        sums: &mut [Sums],
    ) {
        dispatch!(self, sums_nibbles(rows, steps, sums));
    }

    /// Turns the sums of one row's planes into f32.
    pub(super) fn scale_i8(self, sums: &[[i32; BLOCK]], columns: &I8Columns, scale: f32, out: &mut Sums) {
        dispatch!(self, scale_i8(sums, columns, scale, out));
    }

    /// Finishes the sums of `rows` and writes them to their tile, see [`super::finish`].
    pub(super) fn finish(
        self,
        ending: &Ending<'_>,
        sums: &mut [Sums],
        rows: Range<usize>,
        tile: &mut TileMut<'_, MaybeUninit<f32>>,
    ) {
        dispatch!(self, finish(ending, sums, rows, tile));
    }

    /// Quantises one row of activations, see [`super::quantise`].
    pub(super) fn quantise_row(self, x: &[f32], bits: ActivationBits, record: &mut [Group]) {
        dispatch!(self, quantise_row(x, bits, record));
    }

    /// Quantises a step of some rows for weights in blocks, see [`super::blocks`].
    pub(super) fn quantise_step<const P: usize>(
        self,
        rows: Rows<'_, f32>,
        step: usize,
        records: &mut [Activations<P>],
    ) {
        dispatch!(self, quantise_step(rows, step, records));
    }
}
