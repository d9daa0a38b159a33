//! The choice, logit by logit.

/// The lowest id among the largest logits; `None` where one is NaN or positive infinity, or all are negative infinity.
pub(super) fn best(row: &[f32]) -> Option<u32> {
    let (mut choice, mut largest) = (None, f32::NEG_INFINITY);
    for (token, &logit) in row.iter().enumerate() {
        if logit.is_nan() || logit == f32::INFINITY {
            return None;
        }
        if logit > largest {
            (choice, largest) = (Some(token as u32), logit);
        }
    }
    choice
}
