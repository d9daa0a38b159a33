//! Reading matrices, whole or some rows at a time: what is packed as it is read need not be there whole beside what it becomes.

use std::ops::Range;

use super::{Entry, Floats, Format, RawBytes, RawEmbedding, RawLinear, RawNibbles, Weights, WeightsError};

/// Some rows of the matrix `{module}.weight`.
#[derive(Debug, Clone)]
pub struct MatrixRows<'a> {
    /// The module's name.
    pub module: &'a str,
    /// Rows and columns of the whole matrix, which the file must agree with.
    pub shape: (usize, usize),
    /// Those that are wanted; they lie inside.
    pub rows: Range<usize>,
}

impl<'a> MatrixRows<'a> {
    /// All rows.
    pub fn all(module: &'a str, shape: (usize, usize)) -> Self {
        Self { module, shape, rows: 0..shape.0 }
    }

    /// What errors call them: the module, and its outputs where these aren't all.
    pub fn told(&self) -> String {
        match &self.rows {
            rows if *rows == (0..self.shape.0) => self.module.to_owned(),
            rows => format!("{}, outputs {rows:?}", self.module),
        }
    }

    fn name(&self) -> String {
        format!("{}.weight", self.module)
    }

    /// Their part of all rows' bytes. A row is whole bytes in every format that is read.
    fn part<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let row = bytes.len() / self.shape.0.max(1);
        &bytes[self.rows.start * row..self.rows.end * row]
    }
}

impl Weights {
    /// Rows of the dense layer `{module}.weight`, shape `(n, k)`; as bytes and scales where a compressed-tensors
    /// folder stores it so (`{module}.weight_scale`, shape `(n, 1)`).
    ///
    /// # Errors
    /// When it is missing, has another shape or is stored in a way that isn't known.
    pub fn linear(&self, wanted: &MatrixRows<'_>) -> Result<RawLinear, WeightsError> {
        match self.matrix(wanted)?.0.format {
            Format::I8 => {}
            Format::Ggml(_) => return Ok(RawLinear::Blocks { values: self.floats(wanted)?.widened() }),
            _ => return Ok(RawLinear::Floats(self.floats(wanted)?)),
        }
        let untargeted = || WeightsError::Untargeted(wanted.name());
        let quantization = self.quantization.as_ref().ok_or_else(untargeted)?;
        let activation_bits = quantization.linear(wanted.module)?.ok_or_else(untargeted)?;
        let (values, scales) = self.bytes_and_scales(wanted)?;
        Ok(RawLinear::I8 { values, scales, activation_bits })
    }

    /// The same rows as 4 bits, scales and offsets where the file stores them so.
    ///
    /// # Errors
    /// When the matrix is missing or has another shape.
    pub fn nibbles(&self, wanted: &MatrixRows<'_>) -> Result<Option<RawNibbles>, WeightsError> {
        let (entry, bytes) = self.matrix(wanted)?;
        Ok(match entry.format {
            Format::Ggml(kind) => RawNibbles::parse(kind, bytes),
            _ => None,
        })
    }

    /// The same rows as bytes and scales of blocks where the file stores them so.
    ///
    /// # Errors
    /// When the matrix is missing or has another shape.
    pub fn blocks_of_bytes(&self, wanted: &MatrixRows<'_>) -> Result<Option<RawBytes>, WeightsError> {
        let (entry, bytes) = self.matrix(wanted)?;
        Ok(match entry.format {
            Format::Ggml(kind) => RawBytes::parse(kind, bytes),
            _ => None,
        })
    }

    /// Rows of the table `{module}.weight`, shape `(n, d)`; as bytes and scales where the folder stores it so.
    ///
    /// # Errors
    /// As [`Weights::linear`].
    pub fn embedding(&self, wanted: &MatrixRows<'_>) -> Result<RawEmbedding, WeightsError> {
        match self.matrix(wanted)?.0.format {
            Format::I8 => {}
            Format::Ggml(_) => return Ok(RawEmbedding::Blocks { values: self.floats(wanted)?.widened() }),
            _ => return Ok(RawEmbedding::Floats(self.floats(wanted)?)),
        }
        if !self.quantization.as_ref().is_some_and(|q| q.targets_embedding(wanted.module)) {
            return Err(WeightsError::Untargeted(wanted.name()));
        }
        let (values, scales) = self.bytes_and_scales(wanted)?;
        Ok(RawEmbedding::I8 { values, scales })
    }

    /// The matrix's entry, and the bytes of the rows.
    fn matrix(&self, wanted: &MatrixRows<'_>) -> Result<(&Entry, &[u8]), WeightsError> {
        let (n, k) = wanted.shape;
        let (entry, bytes) = self.shaped(&wanted.name(), &[n, k])?;
        Ok((entry, wanted.part(bytes)))
    }

    fn floats(&self, wanted: &MatrixRows<'_>) -> Result<Floats, WeightsError> {
        let (entry, bytes) = self.matrix(wanted)?;
        entry.floats(&wanted.name(), bytes, &[wanted.rows.len(), wanted.shape.1])
    }

    fn bytes_and_scales(&self, wanted: &MatrixRows<'_>) -> Result<(Vec<i8>, Vec<f32>), WeightsError> {
        let values = self.matrix(wanted)?.1.iter().map(|&byte| byte.cast_signed()).collect();
        let tensor = format!("{}_scale", wanted.name());
        let (entry, bytes) = self.shaped(&tensor, &[wanted.shape.0, 1])?;
        let scales = entry.floats(&tensor, wanted.part(bytes), &[wanted.rows.len(), 1])?.widened();
        match scales.iter().position(|scale| !scale.is_finite() || *scale < 0.0) {
            Some(at) => Err(WeightsError::Scale { tensor, row: wanted.rows.start + at, value: scales[at] }),
            None => Ok((values, scales)),
        }
    }
}
