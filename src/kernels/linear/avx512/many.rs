//! Block formats on AVX-512 with VNNI, many rows at a time.
//!
//! Their sums lie in the nearest cache, and so does a step of weights: half bytes are taken apart once for a panel of rows. Then 6 rows
//! meet 64 outputs in 24 accumulators, and four products share each load of an activation. For eight products
//! scaling takes a conversion, a multiplication, and one or two fused multiply-adds on the same ports: the bound is two thirds of their peak.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_ps, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_store_ps, _mm512_storeu_si512,
};
use std::hint::black_box;

use super::super::blocks::{Activations, GROUPS, Step, StepWeights};
use super::super::isa::STEP_ROWS;
use super::super::nibbles::{NibbleStep, PAIRS};
use super::super::pack::{LANES, LINES, Sums};
use super::super::rows::Columns;
use super::steps::{AHEAD, broadcast, halves, joined, load_bytes, load_f16, prefetch};

/// What turns the products of a step into a part of the sums, an output each.
#[derive(Clone, Copy)]
pub(in super::super) struct Numbers {
    scales: Sums,
    /// Of weights that have some. The bytes of the others are 128 too large.
    offsets: Sums,
}

impl Numbers {
    pub(in super::super) const ZERO: Numbers = Numbers { scales: Sums::ZERO, offsets: Sums::ZERO };
}

/// The bytes of a step, and its numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(in super::super) fn widen_block<'a>(step: &'a Step, numbers: &mut Numbers) -> &'a StepWeights {
    for line in 0..LINES {
        store(load_f16(&step.scales, line), &mut numbers.scales, line);
    }
    &step.weights
}

/// The same of half bytes, which become bytes in `weights`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(in super::super) fn widen_nibbles<'a>(
    step: &NibbleStep,
    weights: &'a mut StepWeights,
    numbers: &mut Numbers,
) -> &'a StepWeights {
    for (pair, lines) in step.levels.iter().enumerate() {
        for (line, levels) in lines.iter().enumerate() {
            let [low, high] = halves(load_bytes(levels));
            store_bytes(low, &mut weights[pair][line]);
            store_bytes(high, &mut weights[pair + PAIRS][line]);
        }
    }
    for line in 0..LINES {
        store(load_f16(&step.scales, line), &mut numbers.scales, line);
        store(load_f16(&step.offsets, line), &mut numbers.offsets, line);
    }
    weights
}

/// Many rows with weights that have `OFFSETS` or not. `widen` gives a step's bytes, from memory of its own or in what it is lent, and
/// its numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(super) fn many<const P: usize, const OFFSETS: bool, S>(
    rows: Columns<'_, Activations<P>>,
    steps: &[S],
    sums: &mut [Sums],
    widen: impl for<'a> Fn(&'a S, &'a mut StepWeights, &mut Numbers) -> &'a StepWeights,
) {
    // So that none waits for its own products: as even as it goes, and half as many where each takes two.
    let side_by_side = rows.count().div_ceil(rows.count().div_ceil(STEP_ROWS / P));
    // Unknown to the compiler, which would else write this loop out and hold more in registers than there are.
    let groups = black_box(GROUPS);
    let (mut bytes, mut numbers) = ([[[0; 64]; LINES]; GROUPS], Numbers::ZERO);
    let sums = &mut sums[..rows.count()];
    sums.fill(Sums::ZERO);
    for (index, step) in steps.iter().enumerate() {
        prefetch(steps, index + AHEAD);
        let weights = &widen(step, &mut bytes, &mut numbers)[..groups];
        let rows = rows.column(index).chunks(side_by_side);
        for (x, sums) in rows.zip(sums.chunks_mut(side_by_side)) {
            match x.len() {
                1 => add_step::<P, 1, OFFSETS>(x, weights, &numbers, sums),
                2 => add_step::<P, 2, OFFSETS>(x, weights, &numbers, sums),
                3 => add_step::<P, 3, OFFSETS>(x, weights, &numbers, sums),
                4 if P == 1 => add_step::<P, 4, OFFSETS>(x, weights, &numbers, sums),
                5 if P == 1 => add_step::<P, 5, OFFSETS>(x, weights, &numbers, sums),
                6 if P == 1 => add_step::<P, 6, OFFSETS>(x, weights, &numbers, sums),
                _ => unreachable!("at most {side_by_side} rows run side by side"),
            }
        }
    }
}

/// Adds what a step gives of R rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
#[expect(clippy::needless_range_loop, reason = "rows, lines and bytes are walked together, by their numbers")]
fn add_step<const P: usize, const R: usize, const OFFSETS: bool>(
    x: &[Activations<P>],
    weights: &[[[u8; 64]; LINES]],
    numbers: &Numbers,
    sums: &mut [Sums],
) {
    let (Some(x), Some(sums)) = (x.first_chunk::<R>(), sums.first_chunk_mut::<R>()) else {
        unreachable!("{R} rows were counted")
    };
    let mut products = [[[_mm512_setzero_si512(); P]; LINES]; R];
    if !OFFSETS {
        for r in 0..R {
            for line in 0..LINES {
                products[r][line][0] = _mm512_set1_epi32(x[r].correction);
            }
        }
    }
    for (group, lines) in weights.iter().enumerate() {
        let weights = [0, 1, 2, 3].map(|line| load_bytes(&lines[line]));
        for r in 0..R {
            for p in 0..P {
                let x = broadcast(x[r].planes[p][group]);
                for line in 0..LINES {
                    products[r][line][p] = _mm512_dpbusd_epi32(products[r][line][p], weights[line], x);
                }
            }
        }
    }
    for r in 0..R {
        for line in 0..LINES {
            add_scaled::<P, OFFSETS>(numbers, &x[r], joined(products[r][line]), line, &mut sums[r]);
        }
    }
}

/// Adds the products of a row with a line of outputs to its sums.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(in super::super) fn add_scaled<const P: usize, const OFFSETS: bool>(
    numbers: &Numbers,
    x: &Activations<P>,
    products: __m512i,
    line: usize,
    sums: &mut Sums,
) {
    let scale = _mm512_mul_ps(load(&numbers.scales, line), _mm512_set1_ps(x.scale));
    let mut sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, load(sums, line));
    if OFFSETS {
        sum = _mm512_fmadd_ps(_mm512_set1_ps(x.sum), load(&numbers.offsets, line), sum);
    }
    store(sum, sums, line);
}

/// A line of a row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn load(row: &Sums, line: usize) -> __m512 {
    let line: &[f32] = &row.0[line * LANES..][..LANES];
    // SAFETY: `line` is 16 f32, the 64 bytes that are loaded, at a multiple of 64 in a row that is aligned to 64.
    unsafe { _mm512_load_ps(line.as_ptr()) }
}

/// The way back of [`load`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn store(values: __m512, row: &mut Sums, line: usize) {
    let line: &mut [f32] = &mut row.0[line * LANES..][..LANES];
    // SAFETY: `line` is 16 f32, the 64 bytes that are stored, at a multiple of 64 in a row that is aligned to 64.
    unsafe { _mm512_store_ps(line.as_mut_ptr(), values) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn store_bytes(bytes: __m512i, line: &mut [u8; 64]) {
    // SAFETY: a line is the 64 bytes that are stored; the store asks for no alignment.
    unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), bytes) }
}
