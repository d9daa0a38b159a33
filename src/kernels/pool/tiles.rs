//! An output matrix cut into disjoint tiles that threads write at once.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::ComputePool;

impl ComputePool {
    /// Cuts `out`, a row-major matrix, into the tiles of `grid` and calls `work` once for each of them.
    ///
    /// # Panics
    /// When `out` does not hold `grid.rows * grid.columns` elements or a tile side is zero.
    pub fn for_each_tile<T: Send>(
        &self,
        out: &mut [T],
        grid: TileGrid,
        work: impl Fn(TileMut<'_, T>) + Sync,
    ) {
        assert_eq!(out.len(), grid.rows * grid.columns, "the output is a matrix of the grid's size");
        let across = grid.columns.div_ceil(grid.tile_columns);
        let down = grid.rows.div_ceil(grid.tile_rows);
        let base = SharedBase(out.as_mut_ptr());
        self.run(across * down, |index| {
            let rows = span(index / across, grid.tile_rows, grid.rows);
            let columns = span(index % across, grid.tile_columns, grid.columns);
            work(TileMut { base: base.get(), stride: grid.columns, rows, columns, borrow: PhantomData });
        });
    }
}

impl ComputePool {
    /// A new row-major matrix of the grid's size, of which `work` writes each tile once. Nobody writes zeros before: for a
    /// large product one thread would do that while the others wait.
    ///
    /// # Safety
    /// `work` writes every element of the tile that it gets.
    ///
    /// # Panics
    /// When a tile side is zero.
    pub unsafe fn fill_tiles<T: Send>(
        &self,
        grid: TileGrid,
        work: impl Fn(TileMut<'_, MaybeUninit<T>>) + Sync,
    ) -> Vec<T> {
        let len = grid.rows * grid.columns;
        let mut out = Vec::with_capacity(len);
        self.for_each_tile(&mut out.spare_capacity_mut()[..len], grid, work);
        // SAFETY: the capacity is at least `len`, and the tiles, which `work` has written whole, cover the matrix.
        unsafe { out.set_len(len) };
        out
    }

    /// As [`ComputePool::fill_tiles`], cut into bands.
    ///
    /// # Safety
    /// `work` writes every element of the tile that it gets.
    ///
    /// # Panics
    /// When the bands are not in order, or a tile has no columns.
    pub unsafe fn fill_bands<T: Send>(
        &self,
        bands: &Bands<'_>,
        work: impl Fn(usize, TileMut<'_, MaybeUninit<T>>) + Sync,
    ) -> Vec<T> {
        let len = bands.ends.last().copied().unwrap_or(0) * bands.columns;
        let mut out = Vec::with_capacity(len);
        self.for_each_band(&mut out.spare_capacity_mut()[..len], bands, work);
        // SAFETY: the capacity is at least `len`, and the tiles, which `work` has written whole, cover the matrix.
        unsafe { out.set_len(len) };
        out
    }

    /// Cuts `out`, a row-major matrix, into the tiles of `bands` and calls `work` with a band's index once for each of them.
    ///
    /// # Panics
    /// When the bands do not cover the rows of `out` in order, or a tile has no columns.
    pub(super) fn for_each_band<T: Send>(
        &self,
        out: &mut [T],
        bands: &Bands<'_>,
        work: impl Fn(usize, TileMut<'_, T>) + Sync,
    ) {
        let Bands { ends, columns, tile_columns } = *bands;
        assert!(ends.is_sorted(), "bands lie one behind the other");
        assert_eq!(out.len(), ends.last().copied().unwrap_or(0) * columns, "the bands cover the output");
        let across = columns.div_ceil(tile_columns);
        let base = SharedBase(out.as_mut_ptr());
        self.run(across * ends.len(), |index| {
            let band = index / across;
            let rows = if band == 0 { 0 } else { ends[band - 1] }..ends[band];
            let columns_of_tile = span(index % across, tile_columns, columns);
            let tile = TileMut {
                base: base.get(),
                stride: columns,
                rows,
                columns: columns_of_tile,
                borrow: PhantomData,
            };
            work(band, tile);
        });
    }
}

/// The `index`-th span of length `step` in `0..end`.
fn span(index: usize, step: usize, end: usize) -> Range<usize> {
    index * step..((index + 1) * step).min(end)
}

/// How an output matrix is cut into tiles. Tiles at the right and lower edges may be smaller.
#[derive(Clone, Copy, Debug)]
pub struct TileGrid {
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub columns: usize,
    /// Rows of a tile, at least 1.
    pub tile_rows: usize,
    /// Columns of a tile, at least 1.
    pub tile_columns: usize,
}

/// How an output matrix is cut into bands of rows of any height, and these into tiles.
#[derive(Clone, Copy, Debug)]
pub struct Bands<'a> {
    /// Where each band ends, in ascending order; the first starts at row 0 and the last ends with the matrix.
    pub ends: &'a [usize],
    /// Columns of the matrix.
    pub columns: usize,
    /// Columns of a tile, at least 1; the last tile of a band may have less.
    pub tile_columns: usize,
}

/// One tile of an output matrix: the exclusive right to write its elements.
#[derive(Debug)]
pub struct TileMut<'a, T> {
    /// The matrix's first element.
    base: *mut T,
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> TileMut<'_, T> {
    /// The matrix rows that this tile covers.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The matrix columns that this tile covers.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The part `columns` of the matrix row `row`, both counted in the whole matrix.
    ///
    /// # Panics
    /// When they lie outside of the tile.
    pub fn row_mut(&mut self, row: usize, columns: Range<usize>) -> &mut [T] {
        assert!(self.rows.contains(&row), "row {row} lies outside of the tile's {:?}", self.rows);
        assert!(
            self.columns.start <= columns.start
                && columns.start <= columns.end
                && columns.end <= self.columns.end,
            "columns {columns:?} lie outside of the tile's {:?}",
            self.columns
        );
        // SAFETY: `base` starts a live, exclusively borrowed matrix (lifetime 'a) of which row and columns are part, as
        // asserted above and by `for_each_tile` or `for_each_band`. The tiles of a cut are disjoint and each is made once, and `&mut self`
        // allows one slice of this tile at a time, so no other reference to these elements exists.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.add(row * self.stride + columns.start), columns.len())
        }
    }
}

/// The start of an output matrix, on its way to the threads that write disjoint tiles of it.
struct SharedBase<T>(*mut T);

impl<T> SharedBase<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: the pointer is only turned into references by `TileMut`, whose tiles are disjoint, so sharing it sends each
// element to at most one thread; `T: Send` allows that.
unsafe impl<T: Send> Sync for SharedBase<T> {}
