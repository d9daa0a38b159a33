use super::SampleError;

/// Logits searched at once for the largest, and searched again for its place.
const TILE: usize = 1024;
/// Independent maxima in a tile, for the compiler to keep in vector registers.
const LANES: usize = 32;
/// Logits that are looked at together before any is looked at alone.
pub(super) const BLOCK: usize = 32;

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

/// The blocks of `row` in which some logit is at least `floor`, each with the id of its first token.
pub(super) fn blocks_reaching(row: &[f32], floor: f32) -> impl Iterator<Item = (usize, &[f32])> {
    let reaches = move |block: &[f32]| block.iter().fold(false, |any, &x| any | (x >= floor));
    let blocks = row.chunks(BLOCK).enumerate().filter(move |(_, block)| reaches(block));
    blocks.map(|(index, block)| (index * BLOCK, block))
}

/// The `k`-th largest of a row without NaN, equal ones counted each. `k` is 1 up to the row's length.
/// `values` holds at least all larger ones afterwards, each as often as the row does.
pub(super) fn kth_largest(row: &[f32], k: usize, values: &mut Vec<f32>) -> f32 {
    let largest_first = |a: &f32, b: &f32| b.total_cmp(a);
    values.clear();
    // The maxima of columns: k of them are at least `bound`, so the k-th largest of the row is no smaller.
    let columns = (4 * k).next_multiple_of(LANES);
    if columns <= row.len() / 4 {
        values.resize(columns, f32::NEG_INFINITY);
        for chunk in row.chunks(columns) {
            values.iter_mut().zip(chunk).for_each(|(max, &x)| *max = if x > *max { x } else { *max });
        }
        let bound = *values.select_nth_unstable_by(k - 1, largest_first).1;
        values.clear();
        for (_, block) in blocks_reaching(row, bound) {
            values.extend(block.iter().filter(|&&x| x >= bound));
        }
    } else {
        values.extend_from_slice(row);
    }
    *values.select_nth_unstable_by(k - 1, largest_first).1
}
