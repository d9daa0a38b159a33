//! The op on a CUDA device, whose turns and norms are resident there.

use candle_core::{CudaStorage, Device, Layout, Result, Shape};

use super::{
    PrepareHeads,
    plan::{Arguments, launch},
};
use crate::kernels::{
    cuda::{
        Address,
        device::{self, Matrix, address_of, fill},
    },
    norm::Norm,
};

/// `(rows, [q; k; v])` to the same, in the same format.
pub(super) fn forward(
    op: &PrepareHeads<'_>,
    x: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let card = &x.device;
    let x = Matrix::new(x, layout)?;
    op.check(x.rows, x.columns).map_err(candle_core::Error::wrap)?;
    let Some(turns) = &op.rope.there else {
        candle_core::bail!("prepare-heads: the rotary table is not on the device")
    };
    let norm = |of: Option<&Norm>| -> Result<(Address, f32)> {
        let Some(norm) = of else { return Ok(Default::default()) };
        Ok((norm.on_device()?.weight()?, norm.eps()))
    };
    let (query_norm, query_eps) = norm(op.norms.map(|norms| &norms.query))?;
    let (key_norm, key_eps) = norm(op.norms.map(|norms| &norms.key))?;
    let (turns, positions) = (address_of(turns)?, address_of(op.positions.on(&Device::Cuda(card.clone()))?)?);
    let arguments = |out| Arguments {
        x: x.address,
        out,
        positions,
        turns,
        query_norm,
        key_norm,
        rows: x.rows as u32,
        heads: op.heads.heads as u32,
        kv_heads: op.heads.kv_heads as u32,
        dim: op.heads.dim as u32,
        query_eps,
        key_eps,
        normed: u32::from(op.norms.is_some()),
        unused: 0,
    };
    let storage = fill(card, x.format, x.rows * x.columns, |out| {
        // SAFETY: `check` has held widths, positions and norms against the heads.
        unsafe { device::launch(card, launch(x.rows, op.heads, x.format), arguments(out)) }
    })?;
    Ok((storage, layout.shape().clone()))
}
