//! The numbers that keys and values are kept in, and how the kernels get to read them.

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

/// Columns of some rows in f32, by where the rows start.
#[derive(Debug, Clone, Copy)]
pub(super) struct WideRows<'a> {
    pub values: &'a [f32],
    pub starts: &'a [usize],
}

impl<'a> WideRows<'a> {
    #[inline(always)]
    pub fn starts(&self) -> RowStarts<'a> {
        RowStarts::new(self.starts)
    }
}

/// Where a tile of f16 is widened once for all queries that read it. It stays in the nearest cache, so that what comes from
/// memory is half as much and the kernels are those for f32.
#[derive(Debug)]
pub(super) struct Wide {
    values: Vec<f32>,
    starts: Vec<usize>,
    dim: usize,
}

impl Wide {
    pub const fn new() -> Self {
        Self { values: Vec::new(), starts: Vec::new(), dim: 0 }
    }

    /// The columns `offset..offset + dim` of the rows that start at `starts`. `widen` turns f16 to f32.
    #[inline(always)]
    pub fn rows<'a>(
        &'a mut self,
        numbers: Numbers<'a>,
        starts: &'a [usize],
        (offset, dim): (usize, usize),
        widen: impl Fn(&[f16], &mut [f32]),
    ) -> WideRows<'a> {
        match numbers {
            Numbers::F32(values) => WideRows { values: &values[offset..], starts },
            Numbers::F16(values) => {
                self.fit(starts.len(), dim);
                for (start, wide) in starts.iter().zip(self.values.chunks_exact_mut(dim)) {
                    widen(&values[offset + start..][..dim], wide);
                }
                WideRows { values: &self.values, starts: &self.starts[..starts.len()] }
            }
        }
    }

    /// Makes room for so many rows, one behind the other.
    fn fit(&mut self, rows: usize, dim: usize) {
        if self.dim != dim || self.starts.len() < rows {
            self.dim = dim;
            self.starts.clear();
            self.starts.extend((0..rows).map(|row| row * dim));
            self.values.resize(rows * dim, 0.0);
        }
    }
}
