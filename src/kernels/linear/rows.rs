//! The rows that a micro-kernel takes at once.

use std::ops::Range;

/// Some rows of numbers, at equal distances.
///
/// Numbers and not a list of slices: a kernel copies such a list by loads that are wider than the stores which made it, and
/// each of these loads waits until all stores before it have left the core, those of the outputs among them. That took a
/// third of the time of a large product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a, T> {
    /// From the first row on.
    items: &'a [T],
    stride: usize,
    width: usize,
    count: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Rows `range` of `items`, of `width` each.
    pub(super) fn packed(items: &'a [T], width: usize, range: Range<usize>) -> Rows<'a, T> {
        Rows { items: &items[range.start * width..], stride: width, width, count: range.len() }
    }

    /// The same without the first item of each row.
    pub(super) fn without_head(items: &'a [T], stride: usize, range: Range<usize>) -> Rows<'a, T> {
        Rows { items: &items[range.start * stride + 1..], stride, width: stride - 1, count: range.len() }
    }

    /// How many.
    pub(super) fn count(self) -> usize {
        self.count
    }

    /// One of them.
    #[inline(always)]
    pub(super) fn row(self, index: usize) -> &'a [T] {
        &self.items[index * self.stride..][..self.width]
    }

    /// Those from row `first` on.
    pub(super) fn from(self, first: usize) -> Rows<'a, T> {
        Rows { items: &self.items[first * self.stride..], count: self.count - first, ..self }
    }

    /// The first R of them.
    #[inline(always)]
    pub(super) fn array<const R: usize>(self) -> [&'a [T]; R]
    where
        T: Copy,
    {
        std::array::from_fn(|index| self.row(index))
    }

    /// All of them.
    pub(super) fn iter(self) -> impl Iterator<Item = &'a [T]>
    where
        T: Copy,
    {
        (0..self.count).map(move |index| self.row(index))
    }
}
