//! The micro-kernels for AVX2 with FMA, which has 16 registers: a block is done in slices, a tile of rows in parts.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_and_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_set1_epi32, _mm_srli_epi16,
    _mm256_add_epi16, _mm256_add_epi32, _mm256_castsi256_ps, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi16, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_hadd_epi32,
    _mm256_loadu_ps, _mm256_madd_epi16, _mm256_mul_ps, _mm256_permute4x64_epi64, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_slli_epi32,
    _mm256_storeu_ps, _mm256_storeu_si256,
};
use std::mem::MaybeUninit;
use std::ops::Range;

use half::f16;

use super::blocks::{self, Activations, GROUPS, Step};
use super::finish::Ending;
use super::float::{Float, FloatKind, FloatStep};
use super::isa::ROWS;
use super::nibbles::{NibbleStep, PAIRS};
use super::pack::{BLOCK, I8Columns, I8Line, LANES, LINES, Sums};
use super::portable;
use super::quantise::{self, Group};
use super::rows::{Columns, Rows};
use super::weights::ActivationBits;
use crate::kernels::pool::TileMut;

/// See [`super::isa::Kernels::sums_i8`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn sums_i8(rows: Rows<'_, Group>, lines: &[I8Line], _next: &[I8Line], sums: &mut [[i32; BLOCK]]) {
    for first in (0..rows.count()).step_by(3) {
        let (rows, sums) = (rows.skip(first), &mut sums[first..]);
        for line in 0..LINES {
            match rows.count() {
                1 => tile_i8(rows.array::<1>(), lines, line, sums),
                2 => tile_i8(rows.array::<2>(), lines, line, sums),
                _ => tile_i8(rows.array::<3>(), lines, line, sums),
            }
        }
    }
}

/// One line, 16 outputs, for R rows. Both sides are widened to i16 (VPMADDUBSW would saturate); an accumulator holds four
/// outputs as two partial sums each.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn tile_i8<const R: usize>(rows: [&[Group]; R], lines: &[I8Line], line: usize, sums: &mut [[i32; BLOCK]]) {
    let rows = rows.map(|row| &row[..lines.len() / LINES]);
    let mut acc = [[_mm256_setzero_si256(); 4]; R];
    for (step, lines) in lines.chunks_exact(LINES).enumerate() {
        let bytes = lines[line].0.as_chunks::<16>().0;
        let weights = [widen(&bytes[0]), widen(&bytes[1]), widen(&bytes[2]), widen(&bytes[3])];
        for r in 0..R {
            let x = _mm256_cvtepu8_epi16(_mm_set1_epi32(i32::from_ne_bytes(rows[r][step])));
            for q in 0..4 {
                acc[r][q] = _mm256_add_epi32(acc[r][q], _mm256_madd_epi16(x, weights[q]));
            }
        }
    }
    for r in 0..R {
        let out = &mut sums[r][line * LANES..(line + 1) * LANES];
        store_pairs(acc[r][0], acc[r][1], &mut out[..8]);
        store_pairs(acc[r][2], acc[r][3], &mut out[8..]);
    }
}

/// Adds neighbours: eight sums out of two accumulators of four outputs each.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn add_pairs(a: __m256i, b: __m256i) -> __m256i {
    // The horizontal add works in 128-bit halves: a's low, b's low, a's high, b's high.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(a, b))
}

/// [`add_pairs`], stored.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn store_pairs(a: __m256i, b: __m256i, out: &mut [i32]) {
    let sums = add_pairs(a, b);
    let out: &mut [i32] = &mut out[..8];
    // SAFETY: `out` is 8 i32, the 32 bytes that are stored; the store asks for no alignment.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sums) };
}

/// Sixteen int8 as int16.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn widen(bytes: &[i8; 16]) -> __m256i {
    // SAFETY: the array is the 16 bytes that are loaded; the load asks for no alignment.
    let bytes: __m128i = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm256_cvtepi8_epi16(bytes)
}

/// See [`super::isa::Kernels::sums_blocks`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sums_blocks<const P: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[Step],
    sums: &mut [Sums],
) {
    for (row, sums) in sums[..rows.count()].iter_mut().enumerate() {
        for (line, sums) in sums.0.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            line_blocks(rows.row(row, steps.len()), steps, line, sums);
        }
    }
}

/// One row by one line, 16 outputs. Activations are put together again to 15 bits, which i16 holds.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn line_blocks<'a, const P: usize>(
    row: impl Iterator<Item = &'a Activations<P>>,
    steps: &[Step],
    line: usize,
    sums: &mut [f32; LANES],
) {
    let mut acc = [_mm256_setzero_ps(); 2];
    for (x, step) in row.zip(steps) {
        let mut products = [_mm256_setzero_si256(); 4];
        for group in 0..GROUPS {
            let x = integers(x, group);
            let weights = step.weights[group][line].as_chunks::<16>().0;
            for (products, weights) in products.iter_mut().zip(weights) {
                // SAFETY: the array is the 16 bytes that are loaded; the load asks for no alignment.
                let weights = unsafe { _mm_loadu_si128(weights.as_ptr().cast()) };
                *products = _mm256_add_epi32(*products, _mm256_madd_epi16(x, _mm256_cvtepu8_epi16(weights)));
            }
        }
        let correction = _mm256_set1_epi32(if P == 1 { x.correction } else { 128 * x.correction });
        let x_scale = _mm256_set1_ps(x.scale);
        for (half, acc) in acc.iter_mut().enumerate() {
            let sum = add_pairs(products[2 * half], products[2 * half + 1]);
            let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, correction));
            let scale = _mm256_mul_ps(load_f16(&step.scales, 2 * line + half), x_scale);
            *acc = _mm256_fmadd_ps(sum, scale, *acc);
        }
    }
    store_line(acc, sums);
}

/// See [`super::isa::Kernels::sums_nibbles`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sums_nibbles<const P: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[NibbleStep],
    sums: &mut [Sums],
) {
    for (row, sums) in sums[..rows.count()].iter_mut().enumerate() {
        for (line, sums) in sums.0.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            line_nibbles(rows.row(row, steps.len()), steps, line, sums);
        }
    }
}

/// As [`line_blocks`]; a line of half bytes gives two lines of levels.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn line_nibbles<'a, const P: usize>(
    row: impl Iterator<Item = &'a Activations<P>>,
    steps: &[NibbleStep],
    line: usize,
    sums: &mut [f32; LANES],
) {
    let low_half = _mm_set1_epi8(15);
    let mut acc = [_mm256_setzero_ps(); 2];
    for (x, step) in row.zip(steps) {
        let mut products = [_mm256_setzero_si256(); 4];
        for pair in 0..PAIRS {
            let inputs = [integers(x, pair), integers(x, pair + PAIRS)];
            let both = step.levels[pair][line].as_chunks::<16>().0;
            for (products, both) in products.iter_mut().zip(both) {
                // SAFETY: the array is the 16 bytes that are loaded; the load asks for no alignment.
                let both = unsafe { _mm_loadu_si128(both.as_ptr().cast()) };
                let upper = _mm_and_si128(_mm_srli_epi16::<4>(both), low_half);
                for (x, levels) in inputs.into_iter().zip([_mm_and_si128(both, low_half), upper]) {
                    *products =
                        _mm256_add_epi32(*products, _mm256_madd_epi16(x, _mm256_cvtepu8_epi16(levels)));
                }
            }
        }
        let (x_scale, x_sum) = (_mm256_set1_ps(x.scale), _mm256_set1_ps(x.sum));
        for (half, acc) in acc.iter_mut().enumerate() {
            let sum = _mm256_cvtepi32_ps(add_pairs(products[2 * half], products[2 * half + 1]));
            let scale = _mm256_mul_ps(load_f16(&step.scales, 2 * line + half), x_scale);
            let scaled = _mm256_fmadd_ps(sum, scale, *acc);
            *acc = _mm256_fmadd_ps(x_sum, load_f16(&step.offsets, 2 * line + half), scaled);
        }
    }
    store_line(acc, sums);
}

/// The four activations of a group, put together again, for four outputs.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn integers<const P: usize>(x: &Activations<P>, group: usize) -> __m256i {
    let wide =
        |plane: usize| _mm256_cvtepi8_epi16(_mm_set1_epi32(i32::from_ne_bytes(x.planes[plane][group])));
    (1..P).fold(wide(0), |high, plane| _mm256_add_epi16(_mm256_slli_epi16::<7>(high), wide(plane)))
}

/// The numbers of 8 outputs.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load_f16(columns: &[f16; BLOCK], eight: usize) -> __m256 {
    let numbers: &[f16] = &columns[eight * 8..][..8];
    // SAFETY: `numbers` is 8 numbers of 2 bytes, the 16 bytes that are loaded; the load asks for no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) })
}

/// Stores the sums of a line of outputs.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn store_line(acc: [__m256; 2], sums: &mut [f32; LANES]) {
    for (acc, sums) in acc.into_iter().zip(sums.as_chunks_mut::<8>().0) {
        // SAFETY: `sums` is 8 f32, the 32 bytes that are stored; the store asks for no alignment.
        unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), acc) };
    }
}

/// See [`super::blocks`].
#[target_feature(enable = "avx2,fma")]
#[expect(
    clippy::redundant_closure,
    reason = "a function passed by its name would not be compiled for these vectors"
)]
pub(super) fn quantise_step<const P: usize>(
    rows: Rows<'_, f32>,
    step: usize,
    records: &mut [Activations<P>],
) {
    blocks::quantise_spans(rows, step, records, |values, record| blocks::quantise_span(values, record));
}

/// See [`super::isa::Kernels::sums_floats`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sums_floats<F: Float>(rows: Rows<'_, f32>, steps: &[FloatStep<F>], sums: &mut [Sums]) {
    match rows.count() {
        1 => slices::<F, 1, 8>(rows.array(), steps, sums),
        2 => slices::<F, 2, 4>(rows.array(), steps, sums),
        3 => slices::<F, 3, 4>(rows.array(), steps, sums),
        4 => slices::<F, 4, 2>(rows.array(), steps, sums),
        5 => slices::<F, 5, 2>(rows.array(), steps, sums),
        6 => slices::<F, 6, 2>(rows.array(), steps, sums),
        _ => unreachable!("a micro-kernel takes 1 to {ROWS} rows"),
    }
}

/// The block in slices of V vectors of 8 outputs, so that R x V accumulators fit the registers and hide the latency.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn slices<F: Float, const R: usize, const V: usize>(
    rows: [&[f32]; R],
    steps: &[FloatStep<F>],
    sums: &mut [Sums],
) {
    let rows = rows.map(|row| &row[..steps.len()]);
    for first in (0..8).step_by(V) {
        let mut acc = [[_mm256_setzero_ps(); V]; R];
        for (index, FloatStep(step)) in steps.iter().enumerate() {
            let eights = step.as_flattened().as_chunks::<8>().0;
            let mut weights = [_mm256_setzero_ps(); V];
            for (v, weights) in weights.iter_mut().enumerate() {
                *weights = load_floats(&eights[first + v]);
            }
            for r in 0..R {
                let x = _mm256_set1_ps(rows[r][index]);
                for v in 0..V {
                    acc[r][v] = _mm256_fmadd_ps(x, weights[v], acc[r][v]);
                }
            }
        }
        for r in 0..R {
            for (v, acc) in acc[r].iter().enumerate() {
                let out: &mut [f32] = &mut sums[r].0[(first + v) * 8..(first + v + 1) * 8];
                // SAFETY: `out` is 8 f32, the 32 bytes that are stored; the store asks for no alignment.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *acc) };
            }
        }
    }
}

/// Eight weights, widened.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn load_floats<F: Float>(weights: &[F; 8]) -> __m256 {
    let start = weights.as_ptr();
    // SAFETY: the array is as many bytes as are loaded, 32 or 16, by loads that ask for no alignment.
    let short = || unsafe { _mm_loadu_si128(start.cast()) };
    match F::KIND {
        // SAFETY: as above.
        FloatKind::F32 => unsafe { _mm256_loadu_ps(start.cast()) },
        FloatKind::F16 => _mm256_cvtph_ps(short()),
        // A brain float is the upper half of the f32.
        FloatKind::Bf16 => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(short()))),
    }
}

/// See [`super::isa::Kernels::scale_i8`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn scale_i8(sums: &[[i32; BLOCK]], columns: &I8Columns, scale: f32, out: &mut Sums) {
    portable::scale_i8(sums, columns, scale, out);
}

/// See [`super::finish`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn finish(
    ending: &Ending<'_>,
    sums: &mut [Sums],
    rows: Range<usize>,
    tile: &mut TileMut<'_, MaybeUninit<f32>>,
) {
    portable::finish(ending, sums, rows, tile);
}

/// See [`super::quantise`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn quantise_row(x: &[f32], bits: ActivationBits, record: &mut [Group]) {
    quantise::quantise_row(x, bits, record);
}
