//! Where rows of a matrix start.

use std::ops::Range;

/// Rows of a matrix, by where they start, and a bound on that, by which kernels know that they read inside of the matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowStarts<'a> {
    starts: &'a [usize],
    last: usize,
}

impl<'a> RowStarts<'a> {
    /// Of any order.
    #[inline(always)]
    pub fn new(starts: &'a [usize]) -> Self {
        Self { starts, last: starts.iter().copied().max().unwrap_or(0) }
    }

    /// Some of them, under the same bound.
    #[inline(always)]
    pub fn part(self, rows: Range<usize>) -> Self {
        Self { starts: &self.starts[rows], ..self }
    }

    #[inline(always)]
    pub fn starts(self) -> &'a [usize] {
        self.starts
    }

    /// No row starts behind this.
    #[inline(always)]
    pub fn last(self) -> usize {
        self.last
    }
}
