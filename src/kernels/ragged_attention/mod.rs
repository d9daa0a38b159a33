//! Attention over packed rows, without padding: each sequence of a batch is a [`Span`] of query rows with its own keys.
//!
//! The keys of a span are either rows of the same tensor (an encoder, where every row sees every row) or rows of a K/V
//! slab that a block table lists (a decoder's own past, or what it reads of the encoder). T5's additive relative bias is
//! looked up by distance. Each query row's sum walks its keys in order of position from the first that it sees, so
//! neighbours never change a bit.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor, WithDType};

use numbers::Numbers;

#[cfg(feature = "cuda")]
use super::cuda::device::Matrix;
use super::{pool::ComputePool, simd};
use crate::kv::BlockId;

#[cfg(target_arch = "x86_64")]
mod avx512;
mod backward;
mod bias;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod error;
#[cfg(target_arch = "x86_64")]
mod kept;
mod numbers;
#[cfg(any(test, feature = "cuda"))]
mod plan;
mod portable;
mod row_starts;
mod slab;
mod tables;
mod task;

pub mod reference;

pub use bias::{BiasShape, Direction, RelativeBias};
pub use error::AttentionError;
pub use slab::{copy_blocks, empty_slab, write_key_values};
pub use tables::SpanTables;

#[cfg(test)]
mod device_tests;
#[cfg(test)]
#[cfg(feature = "cuda")]
mod gpu_tests;
#[cfg(test)]
mod tests;

/// How the columns of a row are cut into heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads` (grouped queries).
    pub kv_heads: usize,
    /// Numbers a head.
    pub dim: usize,
}

impl HeadShape {
    /// Columns of the queries of a row.
    pub fn query_width(&self) -> usize {
        self.heads * self.dim
    }

    /// Columns of the keys (or of the values) of a row.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.dim
    }
}

/// Where the keys of a span lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys<'a> {
    /// Rows `start..` of the packed tensor.
    Rows {
        /// First row.
        start: usize,
    },
    /// Slab rows: position `p` is row `blocks[p / block_size] * block_size + p % block_size`.
    Blocks {
        /// Block numbers in order of position.
        blocks: &'a [BlockId],
        /// Rows a block.
        block_size: usize,
    },
}

impl Keys<'_> {
    /// The runs of adjacent rows that hold `positions`, as (first row, length).
    fn runs(&self, positions: Range<usize>) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut position = positions.start;
        std::iter::from_fn(move || {
            let left = positions.end.checked_sub(position).filter(|&left| left > 0)?;
            let (first, length) = match self {
                Self::Rows { start } => (start + position, left),
                Self::Blocks { blocks, block_size } => {
                    let inside = position % block_size;
                    let block = blocks[position / block_size].index();
                    (block * block_size + inside, left.min(block_size - inside))
                }
            };
            position += length;
            Some((first, length))
        })
    }

    /// One past the last row that positions `0..count` touch, or `None` when the table is too short.
    fn end(&self, count: usize) -> Option<usize> {
        match self {
            Self::Rows { start } => start.checked_add(count),
            Self::Blocks { blocks, block_size } => {
                let used = blocks.get(..count.div_ceil(*block_size))?;
                used.iter().map(|&block| (block.index() + 1) * block_size).max().or(Some(0))
            }
        }
    }
}

/// One sequence's share of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span<'a> {
    /// Its rows among the query rows. The spans of a batch lie one behind the other and cover all rows.
    pub queries: Range<usize>,
    /// Position of its first query row, for the bias and the causal mask.
    pub first_position: usize,
    /// Number of keys in all.
    pub context: usize,
    /// Where the keys lie.
    pub keys: Keys<'a>,
    /// Whether a row sees only positions up to its own.
    pub causal: bool,
}

impl Span<'_> {
    /// Positions of the keys that query row `row` (counted in the batch) sees through `window`.
    fn visible(&self, row: usize, window: Option<usize>) -> Range<usize> {
        let end = if self.causal { (self.position(row) + 1).min(self.context) } else { self.context };
        let start = window.map_or(0, |window| (self.position(row) + 1).saturating_sub(window));
        start.min(end)..end
    }

    /// Position of query row `row` (counted in the batch).
    fn position(&self, row: usize) -> usize {
        self.first_position + row - self.queries.start
    }
}

/// What all rows of one attention call share.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// How columns are cut into heads.
    pub heads: HeadShape,
    /// Factor on the dot products; 1 for T5.
    pub scale: f32,
    /// Scaled dot products `s` become `cap * tanh(s / cap)` (Gemma 2), before the bias.
    pub soft_cap: Option<f32>,
    /// Additive bias by distance.
    pub bias: Option<&'a RelativeBias>,
    /// A row sees only the last so many positions, its own among them; `None` sees all.
    pub window: Option<usize>,
    /// The sequences.
    pub spans: &'a [Span<'a>],
    /// The threads.
    pub pool: &'a ComputePool,
    /// Where layers that attend over the same spans share what a device needs of them; without, each call copies it.
    pub tables: Option<&'a SpanTables>,
}

impl Attention<'_> {
    /// Attention of packed rows `[q; k; v]` among themselves:
    /// `(rows, (heads + 2 kv_heads) * dim) -> (rows, heads * dim)`.
    ///
    /// # Errors
    /// When a span or a shape does not fit.
    pub fn among_rows(&self, qkv: &Tensor) -> candle_core::Result<Tensor> {
        if qkv.track_op() { self.among_rows_tracked(qkv) } else { qkv.apply_op1_no_bwd(&AmongRows(*self)) }
    }

    /// Attention of query rows, the first columns of `q`, over a K/V slab whose rows are `[k; v]`, on the CPU in f32 or f16:
    /// `(rows, >= heads * dim), (slots, 2 kv_heads * dim) -> (rows, heads * dim)`.
    ///
    /// # Errors
    /// When a span or a shape does not fit.
    pub fn over_slab(&self, q: &Tensor, slab: &Tensor) -> candle_core::Result<Tensor> {
        if q.track_op() || slab.track_op() {
            candle_core::bail!("a slab passes no gradients: attend over rows");
        }
        q.apply_op2_no_bwd(slab, &OverSlab(*self))
    }

    /// Attention of query rows over rows `[k; v]` of another tensor, which spans find by [`Keys::Rows`]:
    /// `(rows, heads * dim), (key rows, 2 kv_heads * dim) -> (rows, heads * dim)`.
    ///
    /// # Errors
    /// When a span or a shape does not fit.
    pub fn over_rows(&self, q: &Tensor, kv: &Tensor) -> candle_core::Result<Tensor> {
        if q.track_op() || kv.track_op() {
            self.over_rows_tracked(q, kv)
        } else {
            q.apply_op2_no_bwd(kv, &OverSlab(*self))
        }
    }

    fn check(&self, rows: usize, key_rows: usize) -> Result<(), AttentionError> {
        let HeadShape { heads, kv_heads, .. } = self.heads;
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(AttentionError::Groups { heads, kv_heads });
        }
        let mut expected = 0;
        for (index, span) in self.spans.iter().enumerate() {
            let found = span.queries.clone();
            if found.start != expected || found.end < found.start || found.end > rows {
                return Err(AttentionError::Rows { span: index, found, expected, rows });
            }
            expected = found.end;
            if span.keys.end(span.context).is_none_or(|end| end > key_rows) {
                return Err(AttentionError::Keys { span: index, context: span.context, available: key_rows });
            }
            let position = span.context.max(span.first_position + span.queries.len());
            if let Some(reach) = self.bias.map(RelativeBias::reach).filter(|&reach| position > reach + 1) {
                return Err(AttentionError::Bias { span: index, position, reach });
            }
        }
        if expected == rows {
            Ok(())
        } else {
            let span = self.spans.len();
            Err(AttentionError::Rows { span, found: expected..expected, expected, rows })
        }
    }

    fn run(
        &self,
        rows: usize,
        q: cpu::Rows<'_>,
        kv: cpu::KeyValues<'_>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.check(rows, kv.rows()).map_err(candle_core::Error::wrap)?;
        let width = self.heads.query_width();
        let out = cpu::attend(self, simd::width(), (q, kv)); // (rows, heads * dim)
        Ok((CpuStorage::F32(out), Shape::from((rows, width))))
    }
}

struct AmongRows<'a>(Attention<'a>);

impl CustomOp1 for AmongRows<'_> {
    fn name(&self) -> &'static str {
        "ragged-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let HeadShape { dim, .. } = self.0.heads;
        let (q_width, kv_width) = (self.0.heads.query_width(), self.0.heads.kv_width());
        let (rows, qkv) = matrix(storage, layout, q_width + 2 * kv_width)?;
        let stride = q_width + 2 * kv_width;
        let q = cpu::Rows { values: qkv, stride, offset: 0 };
        let (keys, values, numbers) = (q_width, q_width + kv_width, Numbers::F32(qkv));
        debug_assert!(dim > 0, "a head has columns");
        self.0.run(rows, q, cpu::KeyValues { numbers, stride, keys, values })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let (q_width, kv_width) = (self.0.heads.query_width(), self.0.heads.kv_width());
        let qkv = Matrix::new(storage, layout)?;
        columns(q_width + 2 * kv_width, qkv.columns)?;
        let columns = cuda::KeyValueColumns { keys: q_width, values: q_width + kv_width };
        cuda::attend(&self.0, &storage.device, (qkv, qkv), columns)
    }
}

struct OverSlab<'a>(Attention<'a>);

impl CustomOp2 for OverSlab<'_> {
    fn name(&self) -> &'static str {
        "paged-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        slab: &CpuStorage,
        slab_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let kv_width = self.0.heads.kv_width();
        let (rows, stride) = q_layout.shape().dims2()?;
        let (_, q) = matrix(q, q_layout, stride)?;
        if stride < self.0.heads.query_width() {
            let expected = self.0.heads.query_width();
            return Err(candle_core::Error::wrap(AttentionError::Columns { expected, found: stride }));
        }
        let numbers = match slab {
            CpuStorage::F16(_) => Numbers::F16(matrix(slab, slab_layout, 2 * kv_width)?.1),
            _ => Numbers::F32(matrix(slab, slab_layout, 2 * kv_width)?.1),
        };
        let kv = cpu::KeyValues { numbers, stride: 2 * kv_width, keys: 0, values: kv_width };
        self.0.run(rows, cpu::Rows { values: q, stride, offset: 0 }, kv)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        q: &candle_core::CudaStorage,
        q_layout: &Layout,
        slab: &candle_core::CudaStorage,
        slab_layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let (q_width, kv_width) = (self.0.heads.query_width(), self.0.heads.kv_width());
        let device = &q.device;
        let (q, slab) = (Matrix::new(q, q_layout)?, Matrix::new(slab, slab_layout)?);
        columns(q_width, q.columns.min(q_width))?;
        columns(2 * kv_width, slab.columns)?;
        cuda::attend(&self.0, device, (q, slab), cuda::KeyValueColumns { keys: 0, values: kv_width })
    }
}

/// Whether a matrix has the columns that the heads need.
#[cfg(feature = "cuda")]
fn columns(expected: usize, found: usize) -> candle_core::Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(candle_core::Error::wrap(AttentionError::Columns { expected, found }))
}

/// The rows of a contiguous matrix of `columns` columns.
fn matrix<'a, T: WithDType>(
    storage: &'a CpuStorage,
    layout: &Layout,
    columns: usize,
) -> candle_core::Result<(usize, &'a [T])> {
    let (rows, found) = layout.shape().dims2()?;
    if found != columns {
        return Err(candle_core::Error::wrap(AttentionError::Columns { expected: columns, found }));
    }
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("attention takes contiguous rows, found {layout:?}")
    };
    Ok((rows, &storage.as_slice::<T>()?[start..end]))
}
