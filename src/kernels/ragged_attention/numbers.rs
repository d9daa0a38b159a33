//! The numbers that keys and values are kept in, and how the kernels get to read them.

use std::ops::Range;

use half::f16;

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

/// Columns of some rows in f32, by where the rows start.
#[derive(Debug, Clone, Copy)]
pub(super) struct WideRows<'a> {
    pub values: &'a [f32],
    pub starts: &'a [usize],
}

/// Where a tile of f16 is widened once for all queries that read it. It stays in the nearest cache, so that what comes from
/// memory is half as much and the kernels are those for f32.
#[derive(Debug)]
pub(super) struct Wide {
    values: Vec<f32>,
    starts: Vec<usize>,
    width: usize,
}

impl Wide {
    pub const fn new() -> Self {
        Self { values: Vec::new(), starts: Vec::new(), width: 0 }
    }

    /// The `columns` of the rows that start at `starts`. `widen` turns f16 to f32.
    #[inline(always)]
    pub fn rows<'a>(
        &'a mut self,
        numbers: Numbers<'a>,
        starts: &'a [usize],
        columns: Range<usize>,
        widen: impl Fn(&[f16], &mut [f32]),
    ) -> WideRows<'a> {
        match numbers {
            Numbers::F32(values) => WideRows { values: &values[columns.start..], starts },
            Numbers::F16(values) => {
                let width = columns.len();
                self.fit(starts.len(), width);
                for (start, wide) in starts.iter().zip(self.values.chunks_exact_mut(width)) {
                    widen(&values[start + columns.start..start + columns.end], wide);
                }
                WideRows { values: &self.values, starts: &self.starts[..starts.len()] }
            }
        }
    }

    /// Makes room for so many rows, one behind the other.
    fn fit(&mut self, rows: usize, width: usize) {
        if self.width != width || self.starts.len() < rows {
            self.width = width;
            self.starts.clear();
            self.starts.extend((0..rows).map(|row| row * width));
            self.values.resize(rows * width, 0.0);
        }
    }
}
