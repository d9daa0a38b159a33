//! Block formats on AMX: products of 16 rows by 64 outputs by 32 inputs in tiles, then scaled and added by AVX-512.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_storeu_si512,
};
use std::mem;
use std::ops::Range;

use super::super::avx512;
use super::super::avx512::steps::{
    AHEAD, Numbers, add_scaled, block_numbers, halves, joined, load_bytes, nibble_numbers, prefetch,
};
use super::super::blocks::{Activations, GROUPS, Step};
use super::super::isa::ROWS;
use super::super::nibbles::{NibbleStep, PAIRS};
use super::super::pack::{LANES, LINES, Sums};
use super::super::rows::Columns;
use super::tiles::{Products, StepTiles, StepWeights, TILE_ROWS};

/// See [`super::super::isa::Kernels::sums_blocks`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) fn sums_blocks<const P: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[Step],
    sums: &mut [Sums],
) {
    for part in parts(rows.count()) {
        let (rows, sums) = (rows.part(part.clone()), &mut sums[part]);
        if rows.count() <= ROWS {
            avx512::sums_blocks(rows, steps, sums);
        } else {
            by_tiles(rows, steps, sums, |step, _| &step.weights, |step, line| block_numbers(step, line));
        }
    }
}

/// See [`super::super::isa::Kernels::sums_nibbles`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) fn sums_nibbles<const P: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[NibbleStep],
    sums: &mut [Sums],
) {
    for part in parts(rows.count()) {
        let (rows, sums) = (rows.part(part.clone()), &mut sums[part]);
        if rows.count() <= ROWS {
            avx512::sums_nibbles(rows, steps, sums);
        } else {
            let numbers = |step: &NibbleStep, line| nibble_numbers(step, line);
            by_tiles(rows, steps, sums, |step, unpacked| unpack(step, unpacked), numbers);
        }
    }
}

/// As many rows as fill tiles, and the rest.
fn parts(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let full = rows / TILE_ROWS * TILE_ROWS;
    [0..full, full..rows].into_iter().filter(|part| !part.is_empty())
}

/// A byte for each level.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn unpack<'a>(step: &NibbleStep, unpacked: &'a mut StepWeights) -> &'a StepWeights {
    for (pair, lines) in step.levels.iter().enumerate() {
        for (line, levels) in lines.iter().enumerate() {
            let [low, high] = halves(load_bytes(levels));
            store_bytes(low, &mut unpacked[pair][line]);
            store_bytes(high, &mut unpacked[pair + PAIRS][line]);
        }
    }
    unpacked
}

/// A step's products of a tile of rows, by byte of the activations.
#[repr(align(64))]
struct Multiplied<const P: usize>([Products; P]);

/// What turns a step's products into a part of the sums.
struct Factors<'a, S, const P: usize> {
    step: &'a S,
    x: &'a [Activations<P>],
    /// The first of their rows.
    row: usize,
}

/// Up to 16 rows, or a multiple of them. `weights` are a step's bytes, which may be unpacked into memory; `numbers` those of a line of it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn by_tiles<const P: usize, S>(
    rows: Columns<'_, Activations<P>>,
    steps: &[S],
    sums: &mut [Sums],
    weights: impl for<'a> Fn(&'a S, &'a mut StepWeights) -> &'a StepWeights,
    numbers: impl Fn(&S, usize) -> Numbers,
) {
    let height = rows.count().min(TILE_ROWS);
    // SAFETY: a `Kernels` holds this instruction set only where `is_available` has found it.
    let tiles = unsafe { StepTiles::new(height) };
    let mut unpacked = [[[0; 64]; LINES]; GROUPS];
    let mut products = [const { Multiplied([[[[0; LANES]; TILE_ROWS]; LINES]; P]) }; 2];
    let [mut now, mut before] = products.each_mut();
    let mut waiting: Option<Factors<'_, S, P>> = None;
    sums.fill(Sums::ZERO);
    for (index, step) in steps.iter().enumerate() {
        prefetch(steps, index + AHEAD, 0..LINES);
        let weights = weights(step, &mut unpacked);
        for (tile, x) in rows.column(index).chunks_exact(height).enumerate() {
            // Asked for before those ahead of them are scaled, because the two units work side by side.
            for (plane, products) in now.0.iter_mut().enumerate() {
                tiles.multiply(x, plane, weights, products);
            }
            if let Some(factors) = waiting.replace(Factors { step, x, row: tile * height }) {
                add_products(&factors, before, &numbers, sums);
            }
            mem::swap(&mut now, &mut before);
        }
    }
    if let Some(factors) = waiting {
        add_products(&factors, before, &numbers, sums);
    }
}

/// Adds what a step gives of a tile of rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn add_products<const P: usize, S>(
    factors: &Factors<'_, S, P>,
    products: &Multiplied<P>,
    numbers: &impl Fn(&S, usize) -> Numbers,
    sums: &mut [Sums],
) {
    let sums = &mut sums[factors.row..];
    for line in 0..LINES {
        let numbers = numbers(factors.step, line);
        for (row, (x, sums)) in factors.x.iter().zip(&mut *sums).enumerate() {
            let mut products: [_; P] = std::array::from_fn(|plane| load(&products.0[plane][line][row]));
            if numbers.offsets.is_none() {
                products[0] = _mm512_add_epi32(products[0], _mm512_set1_epi32(x.correction));
            }
            add_scaled(&numbers, x, joined(products), line, sums);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn load(products: &[i32; LANES]) -> __m512i {
    // SAFETY: 16 integers are the 64 bytes that are loaded; the load asks for no alignment.
    unsafe { _mm512_loadu_si512(products.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn store_bytes(bytes: __m512i, line: &mut [u8; 64]) {
    // SAFETY: a line is the 64 bytes that are stored; the store asks for no alignment.
    unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), bytes) }
}
