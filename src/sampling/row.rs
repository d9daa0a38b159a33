use super::SampleError;

/// Logits searched at once for the largest: small enough to be in the first cache when its place is looked up.
const TILE: usize = 4096;
/// Independent maxima in a tile, for the compiler to keep in vector registers.
const LANES: usize = 32;
/// Logits of which top-k first looks at the largest only.
const BLOCK: usize = 32;

/// The largest logit of a row, and the lowest id that has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Best {
    pub(super) token: u32,
    pub(super) logit: f32,
}

/// Finds the largest logit in one pass.
///
/// # Errors
/// A logit that is NaN or positive infinity, or none above negative infinity.
pub(super) fn best(row: &[f32]) -> Result<Best, SampleError> {
    let (mut max, mut start, mut any_nan) = (f32::NEG_INFINITY, 0, false);
    for (index, tile) in row.chunks(TILE).enumerate() {
        let (tile_max, tile_nan) = max_of(tile);
        any_nan |= tile_nan;
        if tile_max > max {
            (max, start) = (tile_max, index * TILE);
        }
    }
    if any_nan || max == f32::INFINITY {
        let token = row.iter().position(|&x| x.is_nan() || x == f32::INFINITY).unwrap_or_default();
        return Err(SampleError::NotFinite { token: token as u32 });
    }
    match row[start..].iter().position(|&x| x == max) {
        Some(place) if max > f32::NEG_INFINITY => Ok(Best { token: (start + place) as u32, logit: max }),
        _ => Err(SampleError::NothingAllowed),
    }
}

/// The largest number in `values`, and whether there is a NaN among them.
fn max_of(values: &[f32]) -> (f32, bool) {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut nan = [false; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            max[lane] = larger(chunk[lane], max[lane]);
            nan[lane] |= chunk[lane].is_nan();
        }
    }
    let all = max.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| larger(b, a));
    (all, nan.contains(&true) || rest.iter().any(|x| x.is_nan()))
}

/// The `k`-th largest of a row without NaN, equal ones counted each. `k` is 1 up to the row's length.
pub(super) fn kth_largest(row: &[f32], k: usize, values: &mut Vec<f32>) -> f32 {
    let largest_first = |a: &f32, b: &f32| b.total_cmp(a);
    values.clear();
    values.extend(row.chunks(BLOCK).map(|block| max_of(block).0));
    if values.len() >= 2 * k {
        // k blocks have a largest logit of at least `bound`, so the k-th largest of the row is no smaller.
        let bound = *values.select_nth_unstable_by(k - 1, largest_first).1;
        values.clear();
        values.extend(row.iter().filter(|&&x| x >= bound));
    } else {
        values.clear();
        values.extend_from_slice(row);
    }
    *values.select_nth_unstable_by(k - 1, largest_first).1
}
