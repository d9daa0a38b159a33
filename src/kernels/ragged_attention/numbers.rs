//! The numbers that keys and values are kept in, and how the kernels get to read them.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::cpu::RowStarts;

/// A matrix of keys or values, row-major.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbers<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

impl Numbers<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }
}

/// Columns of some rows in f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct WideRows<'a> {
    pub values: &'a [f32],
    pub rows: RowStarts<'a>,
}

/// A cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Numbers in a cache line.
const LINE: usize = 16;

/// Where a tile of f16 is widened once for all queries that read it. It stays in the nearest cache, so that what comes from
/// memory is half as much and the kernels are those for f32.
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

    /// The `columns` of `rows`. `widen` turns f16 to f32.
    #[inline(always)]
    pub fn rows<'a>(
        &'a mut self,
        numbers: Numbers<'a>,
        rows: RowStarts<'a>,
        columns: Range<usize>,
        widen: impl Fn(&[f16], &mut [f32]),
    ) -> WideRows<'a> {
        match numbers {
            Numbers::F32(values) => WideRows { values: &values[columns.start..], rows },
            Numbers::F16(values) => {
                let (count, width) = (rows.starts.len(), columns.len());
                self.fit(count, width);
                let wide: &mut [f32] = bytemuck::cast_slice_mut(&mut self.lines);
                for (start, wide) in rows.starts.iter().zip(wide.chunks_exact_mut(width)) {
                    widen(&values[start + columns.start..start + columns.end], wide);
                }
                let rows = RowStarts { starts: &self.starts[..count], last: count.saturating_sub(1) * width };
                WideRows { values: wide, rows }
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
