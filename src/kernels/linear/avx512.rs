//! The micro-kernels for AVX-512 with VNNI: six rows by 64 outputs in 24 accumulators.

use std::arch::x86_64::{
    __m512, __m512i, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512, _mm512_mul_ps,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_storeu_si512,
};
use std::mem::MaybeUninit;

use half::f16;

use super::activation::Epilogue;
use super::blocks::{Activations, GROUPS, Step};
use super::isa::{BLOCK_ROWS, BLOCK_ROWS_FINE, ROWS};
use super::nibbles::{NibbleStep, PAIRS};
use super::pack::{BLOCK, F32Line, I8Columns, I8Line, LANES, LINES};
use super::quantise::Group;
use super::rows::Rows;
use super::weights::ActivationBits;
use super::{activation, blocks, portable, quantise};

/// See [`super::isa::Kernels::sums_i8`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn sums_i8(rows: Rows<'_, Group>, lines: &[I8Line], sums: &mut [[i32; BLOCK]; ROWS]) {
    match rows.count() {
        1 => tile_i8(rows.array::<1>(), lines, sums),
        2 => tile_i8(rows.array::<2>(), lines, sums),
        3 => tile_i8(rows.array::<3>(), lines, sums),
        4 => tile_i8(rows.array::<4>(), lines, sums),
        5 => tile_i8(rows.array::<5>(), lines, sums),
        6 => tile_i8(rows.array::<6>(), lines, sums),
        _ => unreachable!("a micro-kernel takes 1 to {ROWS} rows"),
    }
}

/// Four unsigned bytes of each row meet 64 outputs by four signed bytes in four instructions, without saturation.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn tile_i8<const R: usize>(rows: [&[Group]; R], lines: &[I8Line], sums: &mut [[i32; BLOCK]; ROWS]) {
    let rows = rows.map(|row| &row[..lines.len() / LINES]);
    let mut acc = [[_mm512_setzero_si512(); LINES]; R];
    for (step, lines) in lines.chunks_exact(LINES).enumerate() {
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

/// See [`super::isa::Kernels::sums_blocks`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn sums_blocks<const P: usize>(
    rows: Rows<'_, Activations<P>>,
    steps: &[Step],
    sums: &mut [[f32; BLOCK]; BLOCK_ROWS],
) {
    match rows.count() {
        1 => tile_blocks::<P, 1, 4>(rows.array(), steps, sums),
        2 => tile_blocks::<P, 2, 4>(rows.array(), steps, sums),
        3 => tile_blocks::<P, 3, 2>(rows.array(), steps, sums),
        4 => tile_blocks::<P, 4, 2>(rows.array(), steps, sums),
        5 if P == 1 => tile_blocks::<P, 5, 2>(rows.array(), steps, sums),
        6 if P == 1 => tile_blocks::<P, 6, 2>(rows.array(), steps, sums),
        _ => unreachable!(
            "a micro-kernel of blocks takes 1 to {BLOCK_ROWS} rows, {BLOCK_ROWS_FINE} of two bytes"
        ),
    }
}

/// R rows by L lines of 16 outputs at a time: as many running sums, and P times as many sums of the block at hand.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
#[expect(clippy::needless_range_loop, reason = "rows, lines and bytes are walked together, by their numbers")]
fn tile_blocks<const P: usize, const R: usize, const L: usize>(
    rows: [&[Activations<P>]; R],
    steps: &[Step],
    sums: &mut [[f32; BLOCK]; BLOCK_ROWS],
) {
    let rows = rows.map(|row| &row[..steps.len()]);
    for first in (0..LINES).step_by(L) {
        let mut acc = [[_mm512_setzero_ps(); L]; R];
        for (index, step) in steps.iter().enumerate() {
            let mut products = [[[_mm512_setzero_si512(); L]; R]; P];
            for r in 0..R {
                products[0][r] = [_mm512_set1_epi32(rows[r][index].correction); L];
            }
            for group in 0..GROUPS {
                for l in 0..L {
                    let line: &[u8; 64] = &step.weights[group][first + l];
                    // SAFETY: a line is 64 bytes, at a multiple of 64 in a step that is aligned to 64.
                    let weights = unsafe { _mm512_load_si512(line.as_ptr().cast()) };
                    for r in 0..R {
                        for p in 0..P {
                            let x = _mm512_set1_epi32(i32::from_ne_bytes(rows[r][index].planes[p][group]));
                            products[p][r][l] = _mm512_dpbusd_epi32(products[p][r][l], weights, x);
                        }
                    }
                }
            }
            for l in 0..L {
                let scales = load_f16(&step.scales, first + l);
                for r in 0..R {
                    let sum = _mm512_cvtepi32_ps(joined(&products, r, l));
                    let scale = _mm512_mul_ps(scales, _mm512_set1_ps(rows[r][index].scale));
                    acc[r][l] = _mm512_fmadd_ps(sum, scale, acc[r][l]);
                }
            }
        }
        store_lines(&acc, first, sums);
    }
}

/// See [`super::isa::Kernels::sums_nibbles`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn sums_nibbles<const P: usize>(
    rows: Rows<'_, Activations<P>>,
    steps: &[NibbleStep],
    sums: &mut [[f32; BLOCK]; BLOCK_ROWS],
) {
    match rows.count() {
        1 => tile_nibbles::<P, 1, 4>(rows.array(), steps, sums),
        2 => tile_nibbles::<P, 2, 4>(rows.array(), steps, sums),
        3 => tile_nibbles::<P, 3, 2>(rows.array(), steps, sums),
        4 => tile_nibbles::<P, 4, 2>(rows.array(), steps, sums),
        5 if P == 1 => tile_nibbles::<P, 5, 2>(rows.array(), steps, sums),
        6 if P == 1 => tile_nibbles::<P, 6, 2>(rows.array(), steps, sums),
        _ => unreachable!(
            "a micro-kernel of blocks takes 1 to {BLOCK_ROWS} rows, {BLOCK_ROWS_FINE} of two bytes"
        ),
    }
}

/// As [`tile_blocks`]; a line of half bytes gives two lines of levels.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
#[expect(clippy::needless_range_loop, reason = "rows, lines and bytes are walked together, by their numbers")]
fn tile_nibbles<const P: usize, const R: usize, const L: usize>(
    rows: [&[Activations<P>]; R],
    steps: &[NibbleStep],
    sums: &mut [[f32; BLOCK]; BLOCK_ROWS],
) {
    let rows = rows.map(|row| &row[..steps.len()]);
    let low_half = _mm512_set1_epi8(15);
    for first in (0..LINES).step_by(L) {
        let mut acc = [[_mm512_setzero_ps(); L]; R];
        for (index, step) in steps.iter().enumerate() {
            let mut products = [[[_mm512_setzero_si512(); L]; R]; P];
            for pair in 0..PAIRS {
                for l in 0..L {
                    let line: &[u8; 64] = &step.levels[pair][first + l];
                    // SAFETY: a line is 64 bytes, at a multiple of 64 in a step that is aligned to 64.
                    let both = unsafe { _mm512_load_si512(line.as_ptr().cast()) };
                    let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(both), low_half);
                    let levels = [_mm512_and_si512(both, low_half), upper];
                    for r in 0..R {
                        for (half, levels) in levels.into_iter().enumerate() {
                            for p in 0..P {
                                let group = rows[r][index].planes[p][pair + half * PAIRS];
                                let x = _mm512_set1_epi32(i32::from_ne_bytes(group));
                                products[p][r][l] = _mm512_dpbusd_epi32(products[p][r][l], levels, x);
                            }
                        }
                    }
                }
            }
            for l in 0..L {
                let scales = load_f16(&step.scales, first + l);
                let offsets = load_f16(&step.offsets, first + l);
                for r in 0..R {
                    let x = &rows[r][index];
                    let sum = _mm512_cvtepi32_ps(joined(&products, r, l));
                    let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x.scale));
                    let scaled = _mm512_fmadd_ps(sum, scale, acc[r][l]);
                    acc[r][l] = _mm512_fmadd_ps(_mm512_set1_ps(x.sum), offsets, scaled);
                }
            }
        }
        store_lines(&acc, first, sums);
    }
}

/// The exact sums of a row and a line of outputs, from those of each byte of the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn joined<const P: usize, const R: usize, const L: usize>(
    products: &[[[__m512i; L]; R]; P],
    r: usize,
    l: usize,
) -> __m512i {
    let [first, rest @ ..] = products.as_slice() else { unreachable!("an activation has a byte") };
    rest.iter().fold(first[r][l], |sum, next| _mm512_add_epi32(_mm512_slli_epi32::<7>(sum), next[r][l]))
}

/// The numbers of a line of outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn load_f16(columns: &[f16; BLOCK], line: usize) -> __m512 {
    let numbers: &[f16] = &columns[line * LANES..][..LANES];
    // SAFETY: `numbers` is 16 numbers of 2 bytes, the 32 bytes that are loaded; the load asks for no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) })
}

/// Stores the sums of R rows by L lines of outputs, from line `first`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn store_lines<const R: usize, const L: usize>(
    acc: &[[__m512; L]; R],
    first: usize,
    sums: &mut [[f32; BLOCK]; BLOCK_ROWS],
) {
    for (acc, sums) in acc.iter().zip(sums) {
        for (l, acc) in acc.iter().enumerate() {
            let out: &mut [f32] = &mut sums[(first + l) * LANES..(first + l + 1) * LANES];
            // SAFETY: `out` is 16 f32, the 64 bytes that are stored; the store asks for no alignment.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *acc) };
        }
    }
}

/// See [`super::blocks`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn quantise_blocks<const P: usize>(x: &[f32], record: &mut [Activations<P>]) {
    blocks::quantise_blocks(x, record);
}

/// See [`super::isa::Kernels::sums_f32`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn sums_f32(rows: Rows<'_, f32>, lines: &[F32Line], sums: &mut [[f32; BLOCK]; ROWS]) {
    match rows.count() {
        1 => tile_f32(rows.array::<1>(), lines, sums),
        2 => tile_f32(rows.array::<2>(), lines, sums),
        3 => tile_f32(rows.array::<3>(), lines, sums),
        4 => tile_f32(rows.array::<4>(), lines, sums),
        5 => tile_f32(rows.array::<5>(), lines, sums),
        6 => tile_f32(rows.array::<6>(), lines, sums),
        _ => unreachable!("a micro-kernel takes 1 to {ROWS} rows"),
    }
}

/// One input of each row meets 64 outputs in four fused multiply-adds.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn tile_f32<const R: usize>(rows: [&[f32]; R], lines: &[F32Line], sums: &mut [[f32; BLOCK]; ROWS]) {
    let rows = rows.map(|row| &row[..lines.len() / LINES]);
    let mut acc = [[_mm512_setzero_ps(); LINES]; R];
    for (step, lines) in lines.chunks_exact(LINES).enumerate() {
        let weights = [load_f32(&lines[0]), load_f32(&lines[1]), load_f32(&lines[2]), load_f32(&lines[3])];
        for r in 0..R {
            let x = _mm512_set1_ps(rows[r][step]);
            for p in 0..LINES {
                acc[r][p] = _mm512_fmadd_ps(x, weights[p], acc[r][p]);
            }
        }
    }
    for r in 0..R {
        for p in 0..LINES {
            let out: &mut [f32] = &mut sums[r][p * LANES..(p + 1) * LANES];
            // SAFETY: `out` is 16 f32, the 64 bytes that are stored; the store asks for no alignment.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc[r][p]) };
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_i8(line: &I8Line) -> __m512i {
    // SAFETY: a line is 64 bytes and aligned to 64.
    unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_f32(line: &F32Line) -> __m512 {
    // SAFETY: a line is 64 bytes and aligned to 64.
    unsafe { _mm512_load_ps(line.0.as_ptr()) }
}

/// See [`super::isa::Kernels::scale_i8`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn scale_i8(
    sums: &[[i32; BLOCK]],
    columns: &I8Columns,
    scale: f32,
    out: &mut [MaybeUninit<f32>; BLOCK],
) {
    portable::scale_i8(sums, columns, scale, out);
}

/// See [`super::isa::Kernels::add`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn add(a: &[f32; BLOCK], b: &[f32; BLOCK], out: &mut [MaybeUninit<f32>; BLOCK]) {
    portable::add(a, b, out);
}

/// See [`super::activation`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn finish(epilogue: Epilogue, block: &mut [f32; BLOCK]) {
    activation::finish(epilogue, block);
}

/// See [`super::quantise`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn quantise_row(x: &[f32], bits: ActivationBits, record: &mut [Group]) {
    quantise::quantise_row(x, bits, record);
}
