//! The kernels for AVX-512, in the order of sums that [`super::cpu`] fixes.

use std::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_storeu_ps, _mm512_mask3_fmadd_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpacklo_pd,
};

use super::{
    cpu::{KEYS, PAIR, QUERIES, WeighedSum},
    kept::Kept,
    numbers::Numbers,
    row_starts::RowStarts,
};

/// Numbers in a vector.
const LANES: usize = 16;

/// The dot products of one or two queries with the keys in `rows` of `keys`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(super) fn scores(queries: &[&[f32]], keys: Numbers<'_>, rows: RowStarts<'_>) -> [[f32; KEYS]; PAIR] {
    match keys {
        Numbers::F32(keys) => scores_by(queries, keys, rows),
        Numbers::F16(keys) => scores_by(queries, keys, rows),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn scores_by<T: Kept>(queries: &[&[f32]], keys: &[T], rows: RowStarts<'_>) -> [[f32; KEYS]; PAIR] {
    match *queries {
        [one] => [scores_of_any([one], keys, rows)[0], [0.0; KEYS]],
        [one, other] => scores_of_any([one, other], keys, rows),
        _ => unreachable!("a kernel takes 1 to {PAIR} queries"),
    }
}

/// R queries of equal length.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn scores_of_any<T: Kept, const R: usize>(
    queries: [&[f32]; R],
    keys: &[T],
    rows: RowStarts<'_>,
) -> [[f32; KEYS]; R] {
    // Heads that models have, in whole vectors, so that the queries stay in registers.
    match queries[0].len() {
        32 => scores_of::<T, R, 2>(queries, keys, rows),
        64 => scores_of::<T, R, 4>(queries, keys, rows),
        80 => scores_of::<T, R, 5>(queries, keys, rows),
        96 => scores_of::<T, R, 6>(queries, keys, rows),
        128 => scores_of::<T, R, 8>(queries, keys, rows),
        _ => scores_of::<T, R, 0>(queries, keys, rows),
    }
}

/// C is the number of vectors in a query, or 0 for any size.
///
/// Four keys at a time keep 16 running sums each, and all are folded together: halves are added, then quarters, and so on,
/// so that the sums of 16 keys end up side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn scores_of<T: Kept, const R: usize, const C: usize>(
    queries: [&[f32]; R],
    keys: &[T],
    rows: RowStarts<'_>,
) -> [[f32; KEYS]; R] {
    let starts: &[usize; KEYS] = rows.starts().try_into().expect("a tile of keys is whole");
    let dim = queries[0].len();
    assert!(rows.last() + dim <= keys.len(), "the keys lie inside of their matrix");
    assert!(queries.iter().all(|q| q.len() == dim), "queries are of one length");
    let mut whole = [[_mm512_setzero_ps(); C]; R];
    for (whole, q) in whole.iter_mut().zip(queries) {
        for (whole, chunk) in whole.iter_mut().zip(q.as_chunks::<LANES>().0) {
            // SAFETY: the chunk is 16 elements; the load asks for no alignment.
            *whole = unsafe { _mm512_loadu_ps(chunk.as_ptr()) };
        }
    }
    let mut folded = [[_mm512_setzero_ps(); 4]; R];
    for key in 0..4 {
        // Their sums come out at the places `key`, `key + 4`, `key + 8` and `key + 12`.
        let mut sums = [[_mm512_setzero_ps(); R]; 4];
        for (place, sums) in sums.iter_mut().enumerate() {
            let start = starts[key + 4 * place];
            // SAFETY: each of `starts` is at most `last`, from where on `keys` has `dim` elements, as asserted; and
            // where C is not 0, a query has C vectors.
            *sums = unsafe {
                let at = keys.as_ptr().add(start);
                if C > 0 { products(&whole, at) } else { queries.map(|q| products_of_any(q, at)) }
            };
        }
        for (r, folded) in folded.iter_mut().enumerate() {
            let pairs = [halves(sums[0][r], sums[1][r]), halves(sums[2][r], sums[3][r])];
            let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(pairs[0], pairs[1]);
            let odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(pairs[0], pairs[1]);
            folded[key] = _mm512_add_ps(even, odd); // a quarter of a vector for each of the four
        }
    }
    let mut scores = [[0.0; KEYS]; R];
    for (folded, scores) in folded.iter().zip(&mut scores) {
        let eighths = [eighths(folded[0], folded[1]), eighths(folded[2], folded[3])];
        let even = _mm512_shuffle_ps::<0b10_00_10_00>(eighths[0], eighths[1]);
        let odd = _mm512_shuffle_ps::<0b11_01_11_01>(eighths[0], eighths[1]);
        // SAFETY: the array is the 64 bytes that are stored; the store asks for no alignment.
        unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), _mm512_add_ps(even, odd)) };
    }
    scores
}

/// Element `i` of the products goes into sum `i % 16`, in order.
///
/// # Safety
/// `key` points to C readable vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
#[expect(clippy::needless_range_loop, reason = "queries and vectors are walked together, by their numbers")]
unsafe fn products<T: Kept, const R: usize, const C: usize>(
    queries: &[[__m512; C]; R],
    key: *const T,
) -> [__m512; R] {
    let mut sums = [_mm512_setzero_ps(); R];
    for chunk in 0..C {
        // SAFETY: within C vectors; the load asks for no alignment.
        let key = unsafe { T::load(key.add(chunk * LANES)) };
        for r in 0..R {
            sums[r] = _mm512_fmadd_ps(queries[r][chunk], key, sums[r]);
        }
    }
    sums
}

/// [`products`] for a `q` of any size.
///
/// # Safety
/// `key` points to `q.len()` readable elements.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn products_of_any<T: Kept>(q: &[f32], key: *const T) -> __m512 {
    let mut sums = _mm512_setzero_ps();
    for (chunk, q) in q.chunks(LANES).enumerate() {
        let mask = first(q.len());
        // SAFETY: the mask keeps both loads within the chunk, which is as long in the key.
        sums = unsafe {
            let key = T::load_first(mask, key.add(chunk * LANES));
            _mm512_mask3_fmadd_ps(_mm512_maskz_loadu_ps(mask, q.as_ptr()), key, sums, mask)
        };
    }
    sums
}

/// The sum of each vector's halves, a's first.
#[target_feature(enable = "avx512f")]
#[inline]
fn halves(a: __m512, b: __m512) -> __m512 {
    let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
    let high = _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b);
    _mm512_add_ps(low, high)
}

/// The sum of the halves of each quarter of a vector, a's first.
#[target_feature(enable = "avx512f")]
#[inline]
fn eighths(a: __m512, b: __m512) -> __m512 {
    let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
    _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
}

/// A mask of the first `count` lanes, at most 16.
#[inline]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

/// Adds weighed values to `sums` `(queries, dim)`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(super) fn weigh(call: &WeighedSum<'_>, sums: &mut [f32]) {
    match call.values {
        Numbers::F32(values) => weigh_by(call, values, sums),
        Numbers::F16(values) => weigh_by(call, values, sums),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn weigh_by<T: Kept>(call: &WeighedSum<'_>, values: &[T], sums: &mut [f32]) {
    match call.queries {
        1 => weigh_rows::<T, 1>(call, values, sums),
        2 => weigh_rows::<T, 2>(call, values, sums),
        3 => weigh_rows::<T, 3>(call, values, sums),
        4 => weigh_rows::<T, 4>(call, values, sums),
        5 => weigh_rows::<T, 5>(call, values, sums),
        6 => weigh_rows::<T, 6>(call, values, sums),
        _ => unreachable!("a kernel takes 1 to {QUERIES} queries"),
    }
}

/// R queries, their columns in strips of four vectors, then of one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn weigh_rows<T: Kept, const R: usize>(call: &WeighedSum<'_>, values: &[T], sums: &mut [f32]) {
    let keys = call.rows.starts().len();
    assert!(sums.len() >= R * call.dim, "an output a query");
    assert!(call.weights.len() >= (R - 1) * call.stride + keys, "a weight a key and query");
    assert!(values.len() >= call.rows.last() + call.dim, "the values lie inside of their matrix");
    let mut column = 0;
    while column + 4 * LANES <= call.dim {
        // SAFETY: as asserted, and the strip's columns are below `dim`.
        unsafe { strip::<T, R, 4>(call, values, sums, column, u16::MAX) };
        column += 4 * LANES;
    }
    while column < call.dim {
        // SAFETY: as above, and the mask leaves out the columns from `dim` on.
        unsafe { strip::<T, R, 1>(call, values, sums, column, first((call.dim - column).min(LANES))) };
        column += LANES;
    }
}

/// V vectors of columns from `column` on, of each only the lanes in `mask`: R x V sums stay in registers while the keys run.
///
/// # Safety
/// `sums` has `dim` elements for each of R queries, `weights` one for each of them and of the keys, `values` `dim` elements
/// from the start of every key's row, and the columns in use are below `dim`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn strip<T: Kept, const R: usize, const V: usize>(
    call: &WeighedSum<'_>,
    values: &[T],
    sums: &mut [f32],
    column: usize,
    mask: __mmask16,
) {
    let (weights, values, sums) = (call.weights.as_ptr(), values.as_ptr(), sums.as_mut_ptr());
    let mut acc = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: every element is inside of its slice by the function's contract; masked lanes are not touched, and loads and
    // stores ask for no alignment.
    unsafe {
        for (r, acc) in acc.iter_mut().enumerate() {
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_maskz_loadu_ps(mask, sums.add(r * call.dim + column + v * LANES));
            }
        }
        for (key, &start) in call.rows.starts().iter().enumerate() {
            let mut row = [_mm512_setzero_ps(); V];
            for (v, row) in row.iter_mut().enumerate() {
                let value = values.add(start + column + v * LANES);
                *row = if V == 1 { T::load_first(mask, value) } else { T::load(value) };
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let weight = _mm512_set1_ps(*weights.add(r * call.stride + key));
                for (acc, row) in acc.iter_mut().zip(row) {
                    *acc = _mm512_fmadd_ps(weight, row, *acc);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                _mm512_mask_storeu_ps(sums.add(r * call.dim + column + v * LANES), mask, acc);
            }
        }
    }
}
