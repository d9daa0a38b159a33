//! A linear map as an op on tensors.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};

use super::{Linear, LinearError, LinearShape, forward::Call};

impl Linear {
    /// Applies the map: `x` (.., k) f32, contiguous, to (.., n).
    ///
    /// # Errors
    /// When `x` is not f32, not contiguous, not on the CPU or its last dimension is not `k`.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.apply_op1(self.clone())
    }

    /// Adds what the map makes of `x` to `onto`: x (.., k) and onto (.., n), f32 and contiguous, to (.., n). To the bit the sum of
    /// the two, without a pass over either.
    ///
    /// # Errors
    /// As [`Linear::forward`], and when `onto` has another shape.
    pub fn forward_onto(&self, x: &Tensor, onto: &Tensor) -> candle_core::Result<Tensor> {
        x.apply_op2(onto, Onto(self.clone()))
    }

    /// Applies the map to `rows` rows: `x` (rows, k) to (rows, n).
    ///
    /// # Errors
    /// When `x` has another length.
    pub fn forward_rows(&self, x: &[f32], rows: usize) -> Result<Vec<f32>, LinearError> {
        self.rows_onto(x, rows, None)
    }

    fn rows_onto(&self, x: &[f32], rows: usize, onto: Option<&[f32]>) -> Result<Vec<f32>, LinearError> {
        let length = |what, expected, got| match expected == got {
            true => Ok(()),
            false => Err(LinearError::Length { what, expected, got }),
        };
        length("activations", rows.saturating_mul(self.shape.k), x.len())?;
        if let Some(onto) = onto {
            length("numbers to add to", rows.saturating_mul(self.shape.n), onto.len())?;
        }
        let call = Call {
            packed: &self.packed,
            shape: self.shape,
            epilogue: self.epilogue,
            onto,
            kernels: self.kernels,
            pool: &self.pool,
        };
        Ok(call.forward(x))
    }

    /// The rows of an input, and the shape of their outputs.
    fn input<'a>(&self, storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<(&'a [f32], Shape)> {
        let LinearShape { n, k } = self.shape;
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("linear: the input must be contiguous; call .contiguous() on it first");
        };
        let Some((_, leading)) = layout.dims().split_last().filter(|(last, _)| **last == k) else {
            candle_core::bail!(
                "linear: the input's last dimension must be {k}, its shape is {:?}",
                layout.shape()
            );
        };
        Ok((&storage.as_slice::<f32>()?[start..end], Shape::from([leading, &[n]].concat())))
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, shape) = self.input(storage, layout)?;
        let out = self.forward_rows(x, x.len() / self.shape.k).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.input_gradient(gradient).map(Some)
    }
}

/// See [`Linear::forward_onto`].
struct Onto(Linear);

impl CustomOp2 for Onto {
    fn name(&self) -> &'static str {
        "linear onto"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        onto: &CpuStorage,
        onto_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, shape) = self.0.input(x, x_layout)?;
        if onto_layout.shape() != &shape {
            candle_core::bail!(
                "linear onto: the outputs are {shape:?}, what they are added to {:?}",
                onto_layout.shape()
            );
        }
        let Some((start, end)) = onto_layout.contiguous_offsets() else {
            candle_core::bail!(
                "linear onto: what is added to must be contiguous; call .contiguous() on it first"
            );
        };
        let onto = &onto.as_slice::<f32>()?[start..end];
        let rows = x.len() / self.0.shape.k;
        let out = self.0.rows_onto(x, rows, Some(onto)).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _onto: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(self.0.input_gradient(gradient)?), Some(gradient.clone())))
    }
}
