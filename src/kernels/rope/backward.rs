//! The way back through the turns and norms of heads: turns the other way, then the norms' gradients.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};

use super::{CHUNK, HeadNorms, HeadShape, PrepareHeads, RopeTable};
use crate::kernels::{
    RowIndices,
    contiguous::values,
    pool::{ComputePool, TileGrid},
};

impl PrepareHeads<'_> {
    /// As `forward`, keeping what the way back needs.
    pub(super) fn forward_tracked(&self, qkv: &Tensor) -> candle_core::Result<Tensor> {
        qkv.apply_op1(Kept {
            heads: self.heads,
            norms: self.norms.cloned(),
            rope: self.rope.clone(),
            positions: self.positions.to_vec().into(),
            pool: self.pool.clone(),
        })
    }

    /// One row: from the input and the gradient of the output, in `gradient`, to that of the input, in place.
    fn turn_back(&self, row: &[f32], gradient: &mut [f32], position: u32) {
        let (cos, sin) = self.rope.turn(position);
        let (q_width, dim) = (self.heads.query_width(), self.heads.dim);
        let turned = q_width + self.heads.kv_width();
        for (index, (x, gradient)) in
            row[..turned].chunks_exact(dim).zip(gradient[..turned].chunks_exact_mut(dim)).enumerate()
        {
            let (first, second) = gradient.split_at_mut(dim / 2);
            for (((x, y), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*x, *y) = (*x * cos + *y * sin, *y * cos - *x * sin);
            }
            if let Some(norms) = self.norms {
                let norm = if index < self.heads.heads { &norms.query } else { &norms.key };
                norm.turn_back(x, gradient);
            }
        }
    }
}

/// A [`PrepareHeads`] that owns its parts until the gradients come.
struct Kept {
    heads: HeadShape,
    norms: Option<HeadNorms>,
    rope: RopeTable,
    positions: RowIndices,
    pool: ComputePool,
}

impl Kept {
    fn borrowed(&self) -> PrepareHeads<'_> {
        let Self { heads, norms, rope, positions, pool } = self;
        PrepareHeads { heads: *heads, norms: norms.as_ref(), rope, positions, pool }
    }
}

impl CustomOp1 for Kept {
    fn name(&self) -> &'static str {
        "prepare-heads"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.borrowed().cpu_fwd(storage, layout)
    }

    fn bwd(&self, qkv: &Tensor, _out: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        qkv.apply_op2_no_bwd(&gradient.contiguous()?, &HeadsBackward(self.borrowed())).map(Some)
    }
}

/// `(rows, [q; k; v])` and the gradient of the output to that of the input.
struct HeadsBackward<'a>(PrepareHeads<'a>);

impl CustomOp2 for HeadsBackward<'_> {
    fn name(&self) -> &'static str {
        "prepare-heads-backward"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let qkv = values(self.name(), qkv, layout)?;
        let mut out = values(self.name(), gradient, gradient_layout)?.to_vec();
        let grid = TileGrid { rows, columns: width, tile_rows: (CHUNK / width).max(1), tile_columns: width };
        self.0.pool.for_each_tile(&mut out, grid, |mut tile| {
            for row in tile.rows() {
                let x = &qkv[row * width..(row + 1) * width];
                self.0.turn_back(x, tile.row_mut(row, 0..width), self.0.positions[row]);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}
