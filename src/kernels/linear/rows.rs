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

    /// Items from the start of a row to that of the next.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn stride(self) -> usize {
        self.stride
    }

    /// Where the first one starts.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn start(self) -> *const T {
        self.items.as_ptr()
    }

    /// Those behind the first `count`.
    pub(super) fn skip(self, count: usize) -> Rows<'a, T> {
        Rows { items: &self.items[count * self.stride..], count: self.count - count, ..self }
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
    #[inline(always)]
    pub(super) fn iter(self) -> impl Iterator<Item = &'a [T]>
    where
        T: Copy,
    {
        (0..self.count).map(move |index| self.row(index))
    }
}

/// Some neighbouring rows that lie column by column: all rows' first items, then all rows' second ones.
///
/// A kernel that takes many rows at once then finds what it reads of them side by side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns<'a, T> {
    /// From the first row on.
    items: &'a [T],
    stride: usize,
    count: usize,
}

impl<'a, T> Columns<'a, T> {
    /// Rows `range` of `items`, `rows` in all.
    pub(super) fn new(items: &'a [T], rows: usize, range: Range<usize>) -> Columns<'a, T> {
        Columns { items: &items[range.start..], stride: rows, count: range.len() }
    }

    /// How many rows.
    #[inline(always)]
    pub(super) fn count(self) -> usize {
        self.count
    }

    /// Some of the rows.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn part(self, range: Range<usize>) -> Columns<'a, T> {
        Columns { items: &self.items[range.start..], count: range.len(), ..self }
    }

    /// One item of each row.
    #[inline(always)]
    pub(super) fn column(self, index: usize) -> &'a [T] {
        &self.items[index * self.stride..][..self.count]
    }

    /// One item of each of the first R rows.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline(always)]
    pub(super) fn first<const R: usize>(self, index: usize) -> &'a [T; R] {
        self.column(index).first_chunk().expect("as many rows as the caller has counted")
    }

    /// The first `len` items of one row.
    #[inline(always)]
    pub(super) fn row(self, row: usize, len: usize) -> impl Iterator<Item = &'a T>
    where
        T: Copy,
    {
        (0..len).map(move |index| &self.column(index)[row])
    }
}
