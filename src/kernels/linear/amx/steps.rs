//! Block formats on AMX: products of 16 rows by 64 outputs by 32 inputs in tiles, then scaled and added by AVX-512.

use std::arch::x86_64::{__m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_set1_epi32};
use std::mem;
use std::ops::Range;

use super::super::avx512;
use super::super::avx512::many::{Numbers, add_scaled, widen_block, widen_nibbles};
use super::super::avx512::steps::{AHEAD, joined, prefetch};
use super::super::blocks::{Activations, GROUPS, Step, StepWeights};
use super::super::isa::ROWS;
use super::super::nibbles::NibbleStep;
use super::super::pack::{LANES, LINES, Sums};
use super::super::rows::Columns;
use super::tiles::{Products, StepTiles, TILE_ROWS};

/// See [`super::super::isa::Kernels::sums_blocks`].
///
/// # Safety
/// [`super::is_available`] must have said yes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) unsafe fn sums_blocks<const P: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[Step],
    sums: &mut [Sums],
) {
    for part in parts(rows.count()) {
        let (rows, sums) = (rows.part(part.clone()), &mut sums[part]);
        if rows.count() <= ROWS {
            avx512::sums_blocks(rows, steps, sums);
        } else {
            // SAFETY: what this function asks for.
            unsafe {
                by_tiles::<P, false, _>(rows, steps, sums, |step, _, numbers| widen_block(step, numbers))
            };
        }
    }
}

/// See [`super::super::isa::Kernels::sums_nibbles`].
///
/// # Safety
/// [`super::is_available`] must have said yes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) unsafe fn sums_nibbles<const P: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[NibbleStep],
    sums: &mut [Sums],
) {
    for part in parts(rows.count()) {
        let (rows, sums) = (rows.part(part.clone()), &mut sums[part]);
        if rows.count() <= ROWS {
            avx512::sums_nibbles(rows, steps, sums);
        } else {
            // SAFETY: what this function asks for.
            unsafe {
                by_tiles::<P, true, _>(rows, steps, sums, |step, weights, numbers| {
                    widen_nibbles(step, weights, numbers)
                });
            }
        }
    }
}

/// As many rows as fill tiles, and the rest.
fn parts(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let full = rows / TILE_ROWS * TILE_ROWS;
    [0..full, full..rows].into_iter().filter(|part| !part.is_empty())
}

/// A step's products of a tile of rows, by byte of the activations.
#[repr(align(64))]
struct Multiplied<const P: usize>([Products; P]);

/// What turns a step's products into a part of the sums.
struct Factors<'a, const P: usize> {
    step: usize,
    x: &'a [Activations<P>],
    /// The first of their rows.
    row: usize,
}

/// Up to 16 rows, or a multiple of them; otherwise as [`avx512::many::many`].
///
/// # Safety
/// [`super::is_available`] must have said yes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn by_tiles<const P: usize, const OFFSETS: bool, S>(
    rows: Columns<'_, Activations<P>>,
    steps: &[S],
    sums: &mut [Sums],
    widen: impl for<'a> Fn(&'a S, &'a mut StepWeights, &mut Numbers) -> &'a StepWeights,
) {
    let height = rows.count().min(TILE_ROWS);
    debug_assert!(rows.count().is_multiple_of(height), "whole tiles of rows");
    // SAFETY: what this function asks for, and no other guard lives.
    let tiles = unsafe { StepTiles::new(height) };
    let mut bytes = [[[0; 64]; LINES]; GROUPS];
    // Of the step at hand and the one ahead of it.
    let mut numbers = [Numbers::ZERO; 2];
    let mut products = [const { Multiplied([[[[0; LANES]; TILE_ROWS]; LINES]; P]) }; 2];
    let [mut now, mut before] = products.each_mut();
    let mut waiting: Option<Factors<'_, P>> = None;
    sums.fill(Sums::ZERO);
    for (index, step) in steps.iter().enumerate() {
        prefetch(steps, index + AHEAD);
        let weights = widen(step, &mut bytes, &mut numbers[index % 2]);
        for (tile, x) in rows.column(index).chunks_exact(height).enumerate() {
            // Asked for before those ahead of them are scaled, because the two units work side by side.
            for (plane, products) in now.0.iter_mut().enumerate() {
                tiles.multiply(x, plane, weights, products);
            }
            if let Some(factors) = waiting.replace(Factors { step: index, x, row: tile * height }) {
                add_products::<P, OFFSETS>(&factors, before, &numbers[factors.step % 2], sums);
            }
            mem::swap(&mut now, &mut before);
        }
    }
    if let Some(factors) = waiting {
        add_products::<P, OFFSETS>(&factors, before, &numbers[factors.step % 2], sums);
    }
}

/// Adds what a step gives of a tile of rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn add_products<const P: usize, const OFFSETS: bool>(
    factors: &Factors<'_, P>,
    products: &Multiplied<P>,
    numbers: &Numbers,
    sums: &mut [Sums],
) {
    for (row, (x, sums)) in factors.x.iter().zip(&mut sums[factors.row..]).enumerate() {
        for line in 0..LINES {
            let mut products: [_; P] = std::array::from_fn(|plane| load(&products.0[plane][line][row]));
            if !OFFSETS {
                products[0] = _mm512_add_epi32(products[0], _mm512_set1_epi32(x.correction));
            }
            add_scaled::<P, OFFSETS>(numbers, x, joined(products), line, sums);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn load(products: &[i32; LANES]) -> __m512i {
    // SAFETY: 16 integers are the 64 bytes that are loaded; the load asks for no alignment.
    unsafe { _mm512_loadu_si512(products.as_ptr().cast()) }
}
