//! The micro-kernels for AMX: up to 32 rows by 64 outputs in tile registers. Few rows don't fill a tile, and what is not a product of
//! int8 does not go through tiles: both are AVX-512's.

use super::isa::{AMX_ROWS, ROWS};
use super::pack::{BLOCK, I8Line, LINES, Line};
use super::quantise::Group;
use super::rows::Rows;
use tiles::{GROUPS, I8Tiles, TILE_ROWS};

pub(super) use super::avx512::{finish, quantise_row, quantise_step, scale_i8, sums_floats};
pub(super) use permission::is_available;
pub(super) use steps::{sums_blocks, sums_nibbles};

mod permission;
mod steps;
mod tiles;

/// See [`super::isa::Kernels::sums_i8`]. What comes next is not asked for: the processor guesses it from how tiles are loaded.
///
/// # Safety
/// [`is_available`] must have said yes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn sums_i8(
    rows: Rows<'_, Group>,
    lines: &[I8Line],
    next: &[I8Line],
    sums: &mut [[i32; BLOCK]],
) {
    if rows.count() <= ROWS {
        return super::avx512::sums_i8(rows, lines, next, sums);
    }
    let sums = &mut sums[..rows.count()];
    sums.fill([0; BLOCK]);
    // SAFETY: what this function asks for, and no other guard lives.
    let tiles = unsafe { I8Tiles::new(rows.count()) };
    tiles.add(rows, lines, sums);
    let done = lines.len() / LINES / GROUPS * GROUPS;
    if done * LINES < lines.len() {
        add_rest(&tiles, rows, lines, done, sums);
    }
}

/// Adds the products of the last groups of inputs, from `done` on, which are too few for a tile: padded with zeros.
fn add_rest(
    tiles: &I8Tiles,
    rows: Rows<'_, Group>,
    lines: &[I8Line],
    done: usize,
    sums: &mut [[i32; BLOCK]],
) {
    let mut groups = [[Group::default(); GROUPS]; AMX_ROWS];
    for (padded, row) in groups.iter_mut().zip(rows.iter()) {
        padded.iter_mut().zip(&row[done..]).for_each(|(padded, group)| *padded = *group);
    }
    let mut weights = [Line([0; 64]); GROUPS * LINES];
    weights.iter_mut().zip(&lines[done * LINES..]).for_each(|(padded, line)| *padded = *line);
    tiles.add(Rows::packed(groups.as_flattened(), GROUPS, 0..rows.count()), &weights, sums);
}

const _: () = assert!(AMX_ROWS == 2 * TILE_ROWS);
