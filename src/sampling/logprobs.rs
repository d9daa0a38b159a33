use super::{SampleError, exp::sum_exp, row};
use crate::domain::ScoredToken;

/// The raw distribution of a row: its normaliser and its most probable tokens.
#[derive(Debug)]
pub(super) struct RawScores {
    /// ln of the sum of exp(logit).
    log_sum: f64,
    /// Best first, equal ones by id; masked tokens are left out.
    pub(super) top: Vec<ScoredToken>,
}

impl RawScores {
    /// Normalises `row` and finds its `count` most probable tokens.
    ///
    /// # Errors
    /// As [`row::best`].
    pub(super) fn new(row: &[f32], count: usize, values: &mut Vec<f32>) -> Result<Self, SampleError> {
        let max = row::best(row)?.logit;
        let mut scores = Self { log_sum: f64::from(max) + sum_exp(row, max).ln(), top: Vec::new() };
        let count = count.min(row.len());
        if count == 0 {
            return Ok(scores);
        }
        let floor = row::kth_largest(row, count, values).max(f32::MIN);
        // More than `count` only where the last ones tie: of these the first in the row are kept.
        let mut ties = count - values.iter().filter(|&&x| x > floor).count();
        scores.top.reserve_exact(count);
        for (first, block) in row::blocks_reaching(row, floor) {
            for (id, &x) in block.iter().enumerate().filter(|&(_, &x)| x >= floor) {
                if x > floor || ties > 0 {
                    ties -= usize::from(x == floor);
                    scores.top.push(ScoredToken { id: (first + id) as u32, logprob: scores.logprob(x) });
                }
            }
        }
        scores.top.sort_by(|a, b| b.logprob.total_cmp(&a.logprob).then(a.id.cmp(&b.id)));
        Ok(scores)
    }

    /// The log-probability of a token with this logit.
    pub(super) fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit) - self.log_sum) as f32
    }
}
