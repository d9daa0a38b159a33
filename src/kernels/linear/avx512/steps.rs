//! Block formats on AVX-512 with VNNI, few rows at a time: they keep their sums in registers while the weights stream by, for weights
//! are what a step of few rows waits for. Those of many rows are in [`super::many`].

use half::f16;
use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm_storeu_si128, _mm256_loadu_si256, _mm512_add_epi32,
    _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_max_epi32, _mm512_mul_ps, _mm512_reduce_add_epi32, _mm512_reduce_max_epi32, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_srai_epi32, _mm512_srli_epi16, _mm512_store_ps, _mm512_sub_epi32,
};

use super::super::blocks::{self, Activations, GROUPS, SPAN, Step};
use super::super::nibbles::{NibbleStep, PAIRS};
use super::super::pack::{BLOCK, LANES, LINES, Sums};
use super::super::quantise::{ROUND, scale_for};
use super::super::rows::{Columns, Rows};
use super::many::{many, widen_block, widen_nibbles};

/// Steps that weights are asked for ahead of their turn: processors guess what comes next, but too late for many rows a step.
pub(in super::super) const AHEAD: usize = 4;
/// Bytes that are asked for at once.
const CACHE_LINE: usize = 64;

/// See [`super::super::isa::Kernels::sums_blocks`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) fn sums_blocks<const P: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[Step],
    sums: &mut [Sums],
) {
    match rows.count() {
        1 => few_blocks::<P, 1, 4>(rows, steps, sums),
        2 => few_blocks::<P, 2, 4>(rows, steps, sums),
        3 => few_blocks::<P, 3, 2>(rows, steps, sums),
        4 => few_blocks::<P, 4, 2>(rows, steps, sums),
        5 if P == 1 => few_blocks::<P, 5, 2>(rows, steps, sums),
        6 if P == 1 => few_blocks::<P, 6, 2>(rows, steps, sums),
        _ => many::<P, false, _>(rows, steps, sums, |step, _, numbers| widen_block(step, numbers)),
    }
}

/// R rows by L lines of 16 outputs at a time: as many running sums, and P times as many sums of the block at hand.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
#[expect(clippy::needless_range_loop, reason = "rows, lines and bytes are walked together, by their numbers")]
fn few_blocks<const P: usize, const R: usize, const L: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[Step],
    sums: &mut [Sums],
) {
    for first in (0..LINES).step_by(L) {
        let mut acc = [[_mm512_setzero_ps(); L]; R];
        for (index, step) in steps.iter().enumerate() {
            let x: &[_; R] = rows.first(index);
            let mut products = [[[_mm512_setzero_si512(); L]; R]; P];
            for r in 0..R {
                products[0][r] = [_mm512_set1_epi32(x[r].correction); L];
            }
            for group in 0..GROUPS {
                for l in 0..L {
                    let line = &step.weights[group][first + l];
                    prefetch_line::<Step, _>(line.as_ptr());
                    let weights = load_bytes(line);
                    for r in 0..R {
                        for p in 0..P {
                            let x = broadcast(x[r].planes[p][group]);
                            products[p][r][l] = _mm512_dpbusd_epi32(products[p][r][l], weights, x);
                        }
                    }
                }
            }
            for l in 0..L {
                let scales = load_f16(&step.scales, first + l);
                prefetch_line::<Step, _>(step.scales[(first + l) * LANES..].as_ptr());
                for r in 0..R {
                    let sum =
                        _mm512_cvtepi32_ps(joined(std::array::from_fn::<_, P, _>(|p| products[p][r][l])));
                    let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x[r].scale));
                    acc[r][l] = _mm512_fmadd_ps(sum, scale, acc[r][l]);
                }
            }
        }
        store_lines(&acc, first, sums);
    }
}

/// See [`super::super::isa::Kernels::sums_nibbles`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) fn sums_nibbles<const P: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[NibbleStep],
    sums: &mut [Sums],
) {
    match rows.count() {
        1 => few_nibbles::<P, 1, 4>(rows, steps, sums),
        2 => few_nibbles::<P, 2, 4>(rows, steps, sums),
        3 => few_nibbles::<P, 3, 2>(rows, steps, sums),
        4 => few_nibbles::<P, 4, 2>(rows, steps, sums),
        5 if P == 1 => few_nibbles::<P, 5, 2>(rows, steps, sums),
        6 if P == 1 => few_nibbles::<P, 6, 2>(rows, steps, sums),
        _ => many::<P, true, _>(rows, steps, sums, |step, weights, numbers| {
            widen_nibbles(step, weights, numbers)
        }),
    }
}

/// As [`few_blocks`]; a line of half bytes gives two lines of levels.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
#[expect(clippy::needless_range_loop, reason = "rows, lines and bytes are walked together, by their numbers")]
fn few_nibbles<const P: usize, const R: usize, const L: usize>(
    rows: Columns<'_, Activations<P>>,
    steps: &[NibbleStep],
    sums: &mut [Sums],
) {
    for first in (0..LINES).step_by(L) {
        let mut acc = [[_mm512_setzero_ps(); L]; R];
        for (index, step) in steps.iter().enumerate() {
            let x: &[_; R] = rows.first(index);
            let mut products = [[[_mm512_setzero_si512(); L]; R]; P];
            for pair in 0..PAIRS {
                for l in 0..L {
                    let line = &step.levels[pair][first + l];
                    prefetch_line::<NibbleStep, _>(line.as_ptr());
                    let levels = halves(load_bytes(line));
                    for r in 0..R {
                        for (half, levels) in levels.into_iter().enumerate() {
                            for p in 0..P {
                                let x = broadcast(x[r].planes[p][pair + half * PAIRS]);
                                products[p][r][l] = _mm512_dpbusd_epi32(products[p][r][l], levels, x);
                            }
                        }
                    }
                }
            }
            for l in 0..L {
                let scales = load_f16(&step.scales, first + l);
                let offsets = load_f16(&step.offsets, first + l);
                prefetch_line::<NibbleStep, _>(step.scales[(first + l) * LANES..].as_ptr());
                prefetch_line::<NibbleStep, _>(step.offsets[(first + l) * LANES..].as_ptr());
                for r in 0..R {
                    let sum =
                        _mm512_cvtepi32_ps(joined(std::array::from_fn::<_, P, _>(|p| products[p][r][l])));
                    let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x[r].scale));
                    let scaled = _mm512_fmadd_ps(sum, scale, acc[r][l]);
                    acc[r][l] = _mm512_fmadd_ps(_mm512_set1_ps(x[r].sum), offsets, scaled);
                }
            }
        }
        store_lines(&acc, first, sums);
    }
}

/// See [`super::super::blocks`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) fn quantise_step<const P: usize>(
    rows: Rows<'_, f32>,
    step: usize,
    records: &mut [Activations<P>],
) {
    blocks::quantise_spans(rows, step, records, |values, record| quantise_span(values, record));
}

/// As the plain version, by hand: of that one's sums the compiler makes scalar code.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn quantise_span<const P: usize>(values: &[f32; SPAN], record: &mut Activations<P>) {
    let (first, second) = values.split_at(LANES);
    // SAFETY: each half is 16 f32, the 64 bytes that are loaded; the loads ask for no alignment.
    let x = unsafe { [_mm512_loadu_ps(first.as_ptr()), _mm512_loadu_ps(second.as_ptr())] };
    let magnitudes = x.map(|x| _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff)));
    let largest = _mm512_reduce_max_epi32(_mm512_max_epi32(magnitudes[0], magnitudes[1]));
    let limit = Activations::<P>::BITS.limit() as f32;
    let (scale, inverse) = scale_for(f32::from_bits(largest as u32), limit);
    let mut integers = [_mm512_setzero_si512(); 2];
    if inverse != 0.0 {
        let round = _mm512_set1_ps(ROUND);
        integers = x.map(|x| {
            let rounded = _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(inverse)), round);
            _mm512_sub_epi32(_mm512_castps_si512(rounded), _mm512_castps_si512(round))
        });
    }
    let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(integers[0], integers[1]));
    (record.scale, record.sum) = (scale, scale * sum as f32);
    record.correction = if P == 1 { -128 * sum } else { -sum };
    for (plane, bytes) in record.planes.iter_mut().enumerate() {
        let bytes = bytes.as_flattened_mut().as_chunks_mut::<LANES>().0;
        for (bytes, &q) in bytes.iter_mut().zip(&integers) {
            let q = match (P, plane + 1 == P) {
                (1, _) => q,
                (_, true) => _mm512_and_si512(q, _mm512_set1_epi32(127)),
                (_, false) => _mm512_srai_epi32::<7>(q),
            };
            // SAFETY: `bytes` is the 16 bytes that are stored; the store asks for no alignment.
            unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(q)) };
        }
    }
}

/// Asks for a step's weights. Behind the last step lie those of the next block of outputs, whose turn often comes next; an address that
/// may not be read is left alone.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(in super::super) fn prefetch<S>(steps: &[S], index: usize) {
    let step = steps.as_ptr().wrapping_add(index).cast::<i8>();
    for at in (0..size_of::<S>()).step_by(CACHE_LINE) {
        _mm_prefetch::<_MM_HINT_T0>(step.wrapping_add(at));
    }
}

/// Asks for what lies [`AHEAD`] steps behind `number`, when that is read itself: asked for all at once, half bytes came from memory
/// at 0.7 times the rate (one row, an AMD EPYC of the fourth generation).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn prefetch_line<S, T>(number: *const T) {
    _mm_prefetch::<_MM_HINT_T0>(number.cast::<i8>().wrapping_add(AHEAD * size_of::<S>()));
}

/// The exact sums of a row and a line of outputs, from those of each byte of the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(in super::super) fn joined<const P: usize>(products: [__m512i; P]) -> __m512i {
    let [first, rest @ ..] = products.as_slice() else { unreachable!("an activation has a byte") };
    rest.iter().fold(*first, |sum, next| _mm512_add_epi32(_mm512_slli_epi32::<7>(sum), *next))
}

/// Four activations, for each of 16 outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(super) fn broadcast(group: [u8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_ne_bytes(group))
}

/// The lower half of each byte, and the upper one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(super) fn halves(bytes: __m512i) -> [__m512i; 2] {
    let low_half = _mm512_set1_epi8(15);
    [_mm512_and_si512(bytes, low_half), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low_half)]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(super) fn load_bytes(line: &[u8; 64]) -> __m512i {
    // SAFETY: a line is the 64 bytes that are loaded; the load asks for no alignment.
    unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
}

/// The numbers of a line of outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(super) fn load_f16(columns: &[f16; BLOCK], line: usize) -> __m512 {
    let numbers: &[f16] = &columns[line * LANES..][..LANES];
    // SAFETY: `numbers` is 16 numbers of 2 bytes, the 32 bytes that are loaded; the load asks for no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) })
}

/// Stores the sums of R rows by L lines of outputs, from line `first`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn store_lines<const R: usize, const L: usize>(acc: &[[__m512; L]; R], first: usize, sums: &mut [Sums]) {
    for (acc, sums) in acc.iter().zip(sums) {
        for (l, acc) in acc.iter().enumerate() {
            let out: &mut [f32] = &mut sums.0[(first + l) * LANES..][..LANES];
            // SAFETY: `out` is 16 f32, the 64 bytes that are stored, at a multiple of 64 in a row that is aligned to 64.
            unsafe { _mm512_store_ps(out.as_mut_ptr(), *acc) };
        }
    }
}
