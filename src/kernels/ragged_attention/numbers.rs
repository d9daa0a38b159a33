//! The numbers that keys and values are kept in, and how the kernels get to read them.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::row_starts::RowStarts;
use crate::kernels::simd;

/// A matrix of keys or values, row-major.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbers<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

impl Numbers<'_> {
    /// From its `count`-th number on.
    #[inline(always)]
    pub fn skip(self, count: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[count..]),
            Self::F16(values) => Self::F16(&values[count..]),
        }
    }

    /// Asks for some columns of some rows, which are needed soon.
    #[inline(always)]
    pub fn prefetch(self, rows: RowStarts<'_>, columns: Range<usize>) {
        let of_row = |start: usize| start + columns.start..start + columns.end;
        match self {
            Self::F32(values) => {
                rows.starts().iter().for_each(|&start| simd::prefetch(&values[of_row(start)]))
            }
            Self::F16(values) => {
                rows.starts().iter().for_each(|&start| simd::prefetch(&values[of_row(start)]))
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }
}

/// Some rows as the kernels read them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile<'a> {
    /// From the first column on.
    pub numbers: Numbers<'a>,
    pub rows: RowStarts<'a>,
}

/// Numbers in a cache line.
const LINE: usize = simd::LINE / size_of::<f32>();

/// A cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const _: () = assert!(align_of::<Line>() == simd::LINE, "a line starts where the cache's does");

/// Where a tile of f16 is widened once for many queries. It stays in the nearest cache: 16 rows of the heads of a task, or 64 of
/// one.
#[derive(Debug)]
pub(super) struct Wide {
    /// A vector that lies across two lines is read twice.
    lines: Vec<Line>,
    starts: Vec<usize>,
    width: usize,
}

impl Wide {
    pub const fn new() -> Self {
        Self { lines: Vec::new(), starts: Vec::new(), width: 0 }
    }

    /// The `columns` of `rows` in f32. `widen` turns f16 to it.
    #[inline(always)]
    pub fn rows<'a>(
        &'a mut self,
        numbers: Numbers<'a>,
        rows: RowStarts<'a>,
        columns: Range<usize>,
        widen: impl Fn(&[f16], &mut [f32]),
    ) -> Tile<'a> {
        match numbers {
            Numbers::F32(_) => Tile { numbers: numbers.skip(columns.start), rows },
            Numbers::F16(values) => {
                let (count, width) = (rows.starts().len(), columns.len());
                self.fit(count, width);
                let wide: &mut [f32] = bytemuck::cast_slice_mut(&mut self.lines);
                for (start, wide) in rows.starts().iter().zip(wide.chunks_exact_mut(width)) {
                    widen(&values[start + columns.start..start + columns.end], wide);
                }
                let rows = RowStarts::new(&self.starts[..count]);
                Tile { numbers: Numbers::F32(wide), rows }
            }
        }
    }

    /// Makes room for so many rows, one behind the other.
    fn fit(&mut self, rows: usize, width: usize) {
        if self.width != width || self.starts.len() < rows {
            self.width = width;
            self.starts.clear();
            self.starts.extend((0..rows).map(|row| row * width));
            self.lines.resize((rows * width).div_ceil(LINE), Line([0.0; LINE]));
        }
    }
}
