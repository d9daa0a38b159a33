//! How much a number would move on other examples: the bootstrap (Efron 1979).

use super::{metric::Metric, report::Scored};

const RESAMPLES: usize = 1000;

/// The bounds within which the metric lies with 95 % confidence: the 2.5th and 97.5th percentile over a thousand resamples, drawn
/// with a fixed seed. The same answers give the same interval.
pub fn interval_95(metric: Metric, answers: &[Scored]) -> [f64; 2] {
    if answers.is_empty() {
        return [0.0, 0.0];
    }
    let mut state = 0x0DE9_7000_u64;
    let mut draw = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u128::from(z ^ (z >> 31)) * answers.len() as u128) >> 64) as usize
    };
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| metric.of(&(0..answers.len()).map(|_| &answers[draw()]).collect::<Vec<_>>()))
        .collect();
    values.sort_by(f64::total_cmp);
    [values[RESAMPLES / 40], values[RESAMPLES - 1 - RESAMPLES / 40]]
}
