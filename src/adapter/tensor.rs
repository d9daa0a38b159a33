//! A matrix of finite numbers, shared and immutable.

use std::{fmt, sync::Arc};

/// Why numbers do not make a [`Matrix`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MatrixError {
    /// The data does not fill the shape.
    #[error("expected {rows} x {cols} values, found {found}")]
    Length {
        /// Rows of the shape.
        rows: usize,
        /// Columns of the shape.
        cols: usize,
        /// Values given.
        found: usize,
    },
    /// A value is NaN or infinite.
    #[error("expected finite values, found {value} at ({row}, {col})")]
    NotFinite {
        /// Row of the first such value.
        row: usize,
        /// Column of the first such value.
        col: usize,
        /// The value.
        value: f32,
    },
}

/// A row-major matrix of finite f32 values. Cheap to clone: the values are shared.
#[derive(Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Arc<[f32]>,
}

impl Matrix {
    /// From `rows * cols` row-major values.
    ///
    /// # Errors
    /// When the count is another one, or a value is NaN or infinite.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Result<Self, MatrixError> {
        if rows.checked_mul(cols) != Some(data.len()) {
            return Err(MatrixError::Length { rows, cols, found: data.len() });
        }
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            return Err(MatrixError::NotFinite { row: at / cols, col: at % cols, value: data[at] });
        }
        Ok(Self { rows, cols, data: data.into() })
    }

    /// A matrix of no rows, the prompt of an adapter that has none.
    pub fn empty(cols: usize) -> Self {
        Self { rows: 0, cols, data: Arc::from([]) }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `(rows, cols)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// The values, row-major. `(rows, cols)`
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values as a shared slice, for a holder that outlives this matrix. `(rows, cols)`
    pub fn shared(&self) -> Arc<[f32]> {
        Arc::clone(&self.data)
    }

    /// One row. `(cols)`
    ///
    /// # Panics
    /// When `index >= rows`, like any slice.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.cols..(index + 1) * self.cols]
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix({} x {})", self.rows, self.cols)
    }
}
