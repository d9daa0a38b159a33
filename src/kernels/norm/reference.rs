//! What the norm computes, said plainly, in f64.

/// `x` (rows, d) normalised by row and scaled by `weight` (d).
pub(super) fn forward(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
    let normalise = |row: &[f32]| -> Vec<f64> {
        let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / row.len() as f64;
        let inverse = 1.0 / (mean + f64::from(eps)).sqrt();
        row.iter().zip(weight).map(|(&x, &w)| f64::from(x) * inverse * f64::from(w)).collect()
    };
    x.chunks_exact(weight.len()).flat_map(normalise).collect()
}
