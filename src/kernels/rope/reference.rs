//! What happens to a row's heads, said plainly, in f64.

use crate::kernels::ragged_attention::HeadShape;

/// The factors of both norms.
pub(super) struct Weights<'a> {
    pub query: &'a [f32],
    pub key: &'a [f32],
    pub eps: f32,
}

/// One row `[q; k; v]` at `position`: root-mean-square norms by head, then turns by `frequencies` `(dim / 2)`.
pub(super) fn prepare(
    row: &[f32],
    heads: HeadShape,
    norms: Option<&Weights<'_>>,
    frequencies: &[f32],
    position: u32,
) -> Vec<f64> {
    let mut out: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    for head in 0..heads.heads + heads.kv_heads {
        let columns = head * heads.dim..(head + 1) * heads.dim;
        if let Some(norms) = norms {
            let weight = if head < heads.heads { norms.query } else { norms.key };
            let squares: f64 = out[columns.clone()].iter().map(|x| x * x).sum();
            let scale = 1.0 / (squares / heads.dim as f64 + f64::from(norms.eps)).sqrt();
            for (x, weight) in out[columns.clone()].iter_mut().zip(weight) {
                *x *= scale * f64::from(*weight);
            }
        }
        for (i, frequency) in frequencies.iter().enumerate() {
            let angle = f64::from(position) * f64::from(*frequency);
            let (x, y) = (out[columns.start + i], out[columns.start + i + heads.dim / 2]);
            out[columns.start + i] = x * angle.cos() - y * angle.sin();
            out[columns.start + i + heads.dim / 2] = x * angle.sin() + y * angle.cos();
        }
    }
    out
}
