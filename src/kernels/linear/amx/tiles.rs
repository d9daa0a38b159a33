//! The tile registers: eight of up to 16 rows of 64 bytes, in shapes that are set before use.
//!
//! Intel's Software Developer's Manual, volume 1, chapter 18. The compiler does not know these registers, so each block of assembly
//! reads all that it needs from memory and leaves all that it makes there; only their shapes last from block to block.

use std::arch::asm;
use std::marker::PhantomData;
use std::mem::offset_of;

use super::super::blocks::{self, Activations, StepWeights};
use super::super::pack::{BLOCK, I8Line, LANES, LINES};
use super::super::quantise::Group;
use super::super::rows::Rows;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Bytes of a tile's row.
const TILE_BYTES: u16 = 64;
/// Groups of four inputs that a full tile takes.
pub(super) const GROUPS: usize = TILE_ROWS;

/// The shape of each tile register, as the processor reads it.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tile registers in some shapes, for the thread that has set them.
struct Shaped(PhantomData<*const ()>);

impl Shaped {
    /// # Safety
    /// [`super::is_available`] must have said yes, and no other guard may live on this thread. While one does, nothing may run that sets
    /// shapes by itself: this crate calls nothing but its own functions then.
    unsafe fn new(shapes: [(usize, u16); 8]) -> Shaped {
        let mut table =
            Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (index, (rows, bytes)) in shapes.into_iter().enumerate() {
            (table.rows[index], table.row_bytes[index]) = (rows as u8, bytes);
        }
        // SAFETY: reads the 64 bytes of the table. Shapes that no tile can have stop the process; all here come from constants and from
        // numbers of rows that were checked.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &table, options(nostack, preserves_flags, readonly)) };
        Shaped(PhantomData)
    }
}

impl Drop for Shaped {
    /// Tiles that hold something make each switch of threads dearer.
    fn drop(&mut self) {
        // SAFETY: forgets what tiles hold; no block of assembly counts on what another has left in them.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// The tile registers for some rows by 64 outputs of int8 maps.
pub(super) struct I8Tiles {
    _shaped: Shaped,
    rows: usize,
}

impl I8Tiles {
    /// For 1 to 32 rows. Up to 16 take a tile and meet four lines at a time; more take two and meet two.
    ///
    /// # Safety
    /// As [`Shaped::new`].
    pub(super) unsafe fn new(rows: usize) -> I8Tiles {
        assert!((1..=2 * TILE_ROWS).contains(&rows), "{rows} rows don't fit two tiles");
        let weights = (GROUPS, TILE_BYTES);
        let (first, second) =
            ((rows.min(TILE_ROWS), TILE_BYTES), (rows.saturating_sub(TILE_ROWS), TILE_BYTES));
        let shapes = if rows <= TILE_ROWS {
            [first, first, first, first, first, weights, weights, weights]
        } else {
            [first, first, second, second, first, second, weights, weights]
        };
        // SAFETY: what this function asks for; no tile here has more than 16 rows.
        I8Tiles { _shaped: unsafe { Shaped::new(shapes) }, rows }
    }

    /// Adds to `sums` (rows, 64) the products of `x` (rows, groups) with `lines` (groups, 4), as far as groups fill tiles: 16 each.
    pub(super) fn add(&self, x: Rows<'_, Group>, lines: &[I8Line], sums: &mut [[i32; BLOCK]]) {
        let count = lines.len() / LINES / GROUPS;
        assert!(x.count() == self.rows && sums.len() == self.rows, "the rows that the tiles are for");
        // Of the last row, which has all others ahead of it.
        assert!(x.row(self.rows - 1).len() >= count * GROUPS, "as many inputs as weights");
        if count == 0 {
            return;
        }
        // SAFETY: `x` has `rows` rows, `stride` groups from each other, of at least `16 count` groups; `lines` at least `64 count` lines;
        // `sums` `rows` rows.
        unsafe {
            if self.rows <= TILE_ROWS {
                add_four_lines(x.start(), x.stride(), lines.as_ptr(), count, sums.as_mut_ptr());
            } else {
                for pair in 0..2 {
                    let (lines, sums) = (lines.as_ptr().add(2 * pair), sums.as_mut_ptr().cast::<i32>());
                    add_two_lines(x.start(), x.stride(), lines, count, sums.add(2 * pair * LANES));
                }
            }
        }
    }
}

/// One tile of rows by four lines of outputs.
///
/// # Safety
/// As many rows as tiles are shaped for, `stride` groups from each other, of `16 count` groups; `64 count` lines; as many rows of sums.
unsafe fn add_four_lines(
    x: *const Group,
    stride: usize,
    lines: *const I8Line,
    count: usize,
    sums: *mut [i32; BLOCK],
) {
    // SAFETY: what this function asks for; a row of sums and the four lines of a group are 256 bytes both.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {line}]",
            "tileloadd tmm1, [{sums} + {line} + 64]",
            "tileloadd tmm2, [{sums} + {line} + 128]",
            "tileloadd tmm3, [{sums} + {line} + 192]",
            "2:",
            "tileloadd tmm4, [{x} + {stride}]",
            "tileloadd tmm5, [{w} + {line}]",
            "tdpbusd tmm0, tmm4, tmm5",
            "tileloadd tmm6, [{w} + {line} + 64]",
            "tdpbusd tmm1, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {line} + 128]",
            "tdpbusd tmm2, tmm4, tmm7",
            "tileloadd tmm5, [{w} + {line} + 192]",
            "tdpbusd tmm3, tmm4, tmm5",
            "add {x}, 64",
            "add {w}, 4096",
            "dec {count}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 64], tmm1",
            "tilestored [{sums} + {line} + 128], tmm2",
            "tilestored [{sums} + {line} + 192], tmm3",
            x = inout(reg) x => _,
            w = inout(reg) lines => _,
            count = inout(reg) count => _,
            stride = in(reg) stride * size_of::<Group>(),
            line = in(reg) size_of::<[i32; BLOCK]>(),
            sums = in(reg) sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Two tiles of rows by two lines of outputs: each load of a tile feeds two products.
///
/// # Safety
/// As [`add_four_lines`], from the first of the two lines and its sums on.
unsafe fn add_two_lines(x: *const Group, stride: usize, lines: *const I8Line, count: usize, sums: *mut i32) {
    // SAFETY: what this function asks for; more than 16 rows are 16 and the rest.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {line}]",
            "tileloadd tmm1, [{sums} + {line} + 64]",
            "tileloadd tmm2, [{more_sums} + {line}]",
            "tileloadd tmm3, [{more_sums} + {line} + 64]",
            "2:",
            "tileloadd tmm4, [{x} + {stride}]",
            "tileloadd tmm6, [{w} + {line}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {line} + 64]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{more_x} + {stride}]",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {x}, 64",
            "add {more_x}, 64",
            "add {w}, 4096",
            "dec {count}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 64], tmm1",
            "tilestored [{more_sums} + {line}], tmm2",
            "tilestored [{more_sums} + {line} + 64], tmm3",
            x = inout(reg) x => _,
            more_x = inout(reg) x.add(TILE_ROWS * stride) => _,
            w = inout(reg) lines => _,
            count = inout(reg) count => _,
            stride = in(reg) stride * size_of::<Group>(),
            line = in(reg) size_of::<[i32; BLOCK]>(),
            sums = in(reg) sums,
            more_sums = in(reg) sums.add(TILE_ROWS * BLOCK),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Products of a tile of rows with a step of weights: by line, then by row.
pub(super) type Products = [[[i32; LANES]; TILE_ROWS]; LINES];

/// The tile registers for some rows that meet weights in blocks, a step of 32 inputs at a time.
pub(super) struct StepTiles {
    _shaped: Shaped,
    rows: usize,
}

impl StepTiles {
    /// For 1 to 16 rows.
    ///
    /// # Safety
    /// As [`Shaped::new`].
    pub(super) unsafe fn new(rows: usize) -> StepTiles {
        assert!((1..=TILE_ROWS).contains(&rows), "{rows} rows don't fit a tile");
        let (x, weights) = ((rows, blocks::SPAN as u16), (blocks::GROUPS, TILE_BYTES));
        let sums = (rows, TILE_BYTES);
        // SAFETY: what this function asks for; no tile here has more than 16 rows.
        let shaped = unsafe { Shaped::new([sums, sums, sums, sums, x, weights, weights, weights]) };
        StepTiles { _shaped: shaped, rows }
    }

    /// Products of plane `plane` of `x` with a step of weights.
    pub(super) fn multiply<const P: usize>(
        &self,
        x: &[Activations<P>],
        plane: usize,
        weights: &StepWeights,
        products: &mut Products,
    ) {
        assert!(x.len() == self.rows, "the rows that the tiles are for");
        let start = offset_of!(Activations<P>, planes) + plane * blocks::SPAN;
        assert!(plane < P, "a byte of the activations");
        // SAFETY: reads 32 bytes, a plane, of as many records as tiles are shaped for, and all weights, the four lines of a group being 256
        // bytes; writes as many rows of each line's products, of 64 bytes, 1024 bytes a line.
        unsafe {
            asm!(
                "tileloadd tmm4, [{x} + {stride}]",
                "tileloadd tmm5, [{w} + {group}]",
                "tilezero tmm0",
                "tdpbsud tmm0, tmm4, tmm5",
                "tileloadd tmm6, [{w} + {group} + 64]",
                "tilezero tmm1",
                "tdpbsud tmm1, tmm4, tmm6",
                "tileloadd tmm7, [{w} + {group} + 128]",
                "tilezero tmm2",
                "tdpbsud tmm2, tmm4, tmm7",
                "tileloadd tmm5, [{w} + {group} + 192]",
                "tilezero tmm3",
                "tdpbsud tmm3, tmm4, tmm5",
                "tilestored [{products} + {row}], tmm0",
                "tilestored [{products} + {row} + 1024], tmm1",
                "tilestored [{products} + {row} + 2048], tmm2",
                "tilestored [{products} + {row} + 3072], tmm3",
                x = in(reg) x.as_ptr().wrapping_byte_add(start),
                stride = in(reg) size_of::<Activations<P>>(),
                w = in(reg) weights,
                group = in(reg) size_of::<[[u8; 64]; LINES]>(),
                products = in(reg) products,
                row = in(reg) size_of::<[i32; LANES]>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
    }
}
