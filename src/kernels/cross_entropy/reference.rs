//! The loss, said plainly, in f64.

/// `weight * sum of -log softmax(logits)[target]` over rows of `vocab` logits.
pub(super) fn loss(logits: &[f32], vocab: usize, targets: &[u32], weight: f64) -> f64 {
    let rows = logits.chunks_exact(vocab).zip(targets);
    let row = |(row, &target): (&[f32], &u32)| {
        let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        total.ln() - f64::from(row[target as usize])
    };
    weight * rows.map(row).sum::<f64>()
}
