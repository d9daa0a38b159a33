//! The micro-kernels for AVX-512 with VNNI: six rows by 64 outputs in 24 accumulators. Those of block formats are in [`steps`].

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T1, _mm_prefetch, _mm256_loadu_si256, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_si512,
    _mm512_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
};
use std::mem::MaybeUninit;
use std::ops::Range;

use super::finish::Ending;
use super::float::{Float, FloatKind, FloatStep};
use super::isa::ROWS;
use super::pack::{BLOCK, I8Columns, I8Line, LANES, LINES, Sums};
use super::portable;
use super::quantise::{self, Group};
use super::rows::Rows;
use super::weights::ActivationBits;
use crate::kernels::pool::TileMut;

pub(super) use steps::{quantise_step, sums_blocks, sums_nibbles};

pub(super) mod many;
pub(super) mod steps;

/// See [`super::isa::Kernels::sums_i8`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn sums_i8(rows: Rows<'_, Group>, lines: &[I8Line], next: &[I8Line], sums: &mut [[i32; BLOCK]]) {
    match rows.count() {
        1 => tile_i8(rows.array::<1>(), lines, next, sums),
        2 => tile_i8(rows.array::<2>(), lines, next, sums),
        3 => tile_i8(rows.array::<3>(), lines, next, sums),
        4 => tile_i8(rows.array::<4>(), lines, next, sums),
        5 => tile_i8(rows.array::<5>(), lines, next, sums),
        6 => tile_i8(rows.array::<6>(), lines, next, sums),
        _ => unreachable!("a micro-kernel takes 1 to {ROWS} rows"),
    }
}

/// Four unsigned bytes of each row meet 64 outputs by four signed bytes in four instructions, without saturation.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn tile_i8<const R: usize>(
    rows: [&[Group]; R],
    lines: &[I8Line],
    next: &[I8Line],
    sums: &mut [[i32; BLOCK]],
) {
    let steps = lines.len() / LINES;
    let rows = rows.map(|row| &row[..steps]);
    let mut next = next.chunks(next.len().div_ceil(steps).max(1));
    let mut acc = [[_mm512_setzero_si512(); LINES]; R];
    for (step, lines) in lines.chunks_exact(LINES).enumerate() {
        for line in next.next().unwrap_or_default() {
            _mm_prefetch::<_MM_HINT_T1>(line.0.as_ptr());
        }
        let weights = [load_i8(&lines[0]), load_i8(&lines[1]), load_i8(&lines[2]), load_i8(&lines[3])];
        for r in 0..R {
            let x = _mm512_set1_epi32(i32::from_ne_bytes(rows[r][step]));
            for p in 0..LINES {
                acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], x, weights[p]);
            }
        }
    }
    for r in 0..R {
        for p in 0..LINES {
            let out: &mut [i32] = &mut sums[r][p * LANES..(p + 1) * LANES];
            // SAFETY: `out` is 16 i32, the 64 bytes that are stored; the store asks for no alignment.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), acc[r][p]) };
        }
    }
}

/// See [`super::isa::Kernels::sums_floats`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn sums_floats<F: Float>(rows: Rows<'_, f32>, steps: &[FloatStep<F>], sums: &mut [Sums]) {
    match rows.count() {
        1 => tile_floats(rows.array::<1>(), steps, sums),
        2 => tile_floats(rows.array::<2>(), steps, sums),
        3 => tile_floats(rows.array::<3>(), steps, sums),
        4 => tile_floats(rows.array::<4>(), steps, sums),
        5 => tile_floats(rows.array::<5>(), steps, sums),
        6 => tile_floats(rows.array::<6>(), steps, sums),
        _ => unreachable!("a micro-kernel takes 1 to {ROWS} rows"),
    }
}

/// One input of each row meets 64 outputs in four fused multiply-adds.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn tile_floats<F: Float, const R: usize>(rows: [&[f32]; R], steps: &[FloatStep<F>], sums: &mut [Sums]) {
    let rows = rows.map(|row| &row[..steps.len()]);
    let mut acc = [[_mm512_setzero_ps(); LINES]; R];
    for (index, FloatStep([a, b, c, d])) in steps.iter().enumerate() {
        let weights = [load_floats(a), load_floats(b), load_floats(c), load_floats(d)];
        for r in 0..R {
            let x = _mm512_set1_ps(rows[r][index]);
            for p in 0..LINES {
                acc[r][p] = _mm512_fmadd_ps(x, weights[p], acc[r][p]);
            }
        }
    }
    for r in 0..R {
        for (p, acc) in acc[r].iter().enumerate() {
            let out: &mut [f32] = &mut sums[r].0[p * LANES..(p + 1) * LANES];
            // SAFETY: `out` is 16 f32, the 64 bytes that are stored; the store asks for no alignment.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *acc) };
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_i8(line: &I8Line) -> __m512i {
    // SAFETY: a line is 64 bytes and aligned to 64.
    unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
}

/// Sixteen weights, widened.
#[target_feature(enable = "avx512f")]
#[inline]
fn load_floats<F: Float>(weights: &[F; LANES]) -> __m512 {
    let start = weights.as_ptr();
    // SAFETY: the array is as many bytes as are loaded, 64 or 32, by loads that ask for no alignment.
    let short = || unsafe { _mm256_loadu_si256(start.cast()) };
    match F::KIND {
        // SAFETY: as above.
        FloatKind::F32 => unsafe { _mm512_loadu_ps(start.cast()) },
        FloatKind::F16 => _mm512_cvtph_ps(short()),
        // A brain float is the upper half of the f32.
        FloatKind::Bf16 => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(short()))),
    }
}

/// See [`super::isa::Kernels::scale_i8`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn scale_i8(sums: &[[i32; BLOCK]], columns: &I8Columns, scale: f32, out: &mut Sums) {
    portable::scale_i8(sums, columns, scale, out);
}

/// See [`super::finish`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn finish(
    ending: &Ending<'_>,
    sums: &mut [Sums],
    rows: Range<usize>,
    tile: &mut TileMut<'_, MaybeUninit<f32>>,
) {
    portable::finish(ending, sums, rows, tile);
}

/// See [`super::quantise`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn quantise_row(x: &[f32], bits: ActivationBits, record: &mut [Group]) {
    quantise::quantise_row(x, bits, record);
}
