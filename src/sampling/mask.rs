/// Which tokens may not be chosen at this position. The default allows all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mask<'a> {
    /// Tokens that may not be chosen, such as the end token before `min_tokens`.
    pub banned: &'a [u32],
    /// What a grammar allows: bit `id % 32` of word `id / 32`. Ids beyond its end are not allowed.
    pub allowed: Option<&'a [u32]>,
}

impl Mask<'_> {
    /// Sets the logits of what may not be chosen to negative infinity.
    pub(super) fn apply(&self, row: &mut [f32]) {
        for &token in self.banned {
            if let Some(logit) = row.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let Some(allowed) = self.allowed else { return };
        let words = allowed.iter().copied().chain(std::iter::repeat(0));
        for (logits, word) in row.chunks_mut(32).zip(words) {
            if word == 0 {
                logits.fill(f32::NEG_INFINITY);
            } else if word != u32::MAX {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                }
            }
        }
    }
}
