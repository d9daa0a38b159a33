//! The product, number by number, in the order that it has everywhere.

/// `(rows, k), (n, k) -> (rows, n)`
pub(super) fn product(x: &[f32], weight: &[f32], (rows, n, k): (usize, usize, usize)) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * n);
    for row in 0..rows {
        let x = &x[row * k..][..k];
        out.extend((0..n).map(|column| dot(x, &weight[column * k..][..k])));
    }
    out
}

/// The sum over k in order, from zero.
fn dot(x: &[f32], weight: &[f32]) -> f32 {
    x.iter().zip(weight).fold(0.0, |sum, (x, weight)| x.mul_add(*weight, sum))
}
