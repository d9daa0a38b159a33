//! What the norms compute, said plainly, in f64.

/// `x` (rows, d) normalised by row, scaled by `weight` (d) and, for layer norm, moved by `bias` (d).
pub(super) fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32) -> Vec<f64> {
    let normalise = |row: &[f32]| -> Vec<f64> {
        let mean_of = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let mut row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        if bias.is_some() {
            let mean = mean_of(&row);
            row.iter_mut().for_each(|x| *x -= mean);
        }
        let squares: Vec<f64> = row.iter().map(|x| x * x).collect();
        let inverse = 1.0 / (mean_of(&squares) + f64::from(eps)).sqrt();
        let bias = |i: usize| bias.map_or(0.0, |bias| f64::from(bias[i]));
        row.iter().zip(weight).enumerate().map(|(i, (x, &w))| x * inverse * f64::from(w) + bias(i)).collect()
    };
    x.chunks_exact(weight.len()).flat_map(normalise).collect()
}
