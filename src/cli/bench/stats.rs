//! Many latencies in a few numbers.

use std::time::Duration;

use serde::Serialize;

/// A distribution of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Summary {
    pub count: usize,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Summary {
    /// Of `latencies`; `None` where there are none.
    pub(super) fn of(mut latencies: Vec<Duration>) -> Option<Self> {
        latencies.sort_unstable();
        let ms = |latency: Duration| latency.as_secs_f64() * 1e3;
        let max = *latencies.last()?;
        let total: Duration = latencies.iter().sum();
        let percentile = |percent| ms(nearest_rank(&latencies, percent));
        Some(Self {
            count: latencies.len(),
            mean: ms(total) / latencies.len() as f64,
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max: ms(max),
        })
    }
}

/// The smallest value that at least `percent` of all do not exceed: a value that was measured, never one in between.
/// `sorted` is not empty, `percent` is 1 to 100.
fn nearest_rank(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

#[cfg(test)]
mod tests {

    use super::*;

    fn ms(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_measured_values() {
        let hundred = Summary::of(ms((1..=100).rev())).unwrap();
        let found = (hundred.count, hundred.mean, hundred.p50, hundred.p90, hundred.p99, hundred.max);
        assert_eq!(found, (100, 50.5, 50.0, 90.0, 99.0, 100.0));
        let ten = Summary::of(ms([10, 20, 30, 40, 50, 60, 70, 80, 90, 1000])).unwrap();
        assert_eq!((ten.p50, ten.p90, ten.p99, ten.max), (50.0, 90.0, 1000.0, 1000.0));
    }

    #[test]
    fn few_values_are_enough() {
        assert_eq!(Summary::of(Vec::new()), None);
        let one = Summary::of(ms([7])).unwrap();
        assert_eq!((one.mean, one.p50, one.p99, one.max), (7.0, 7.0, 7.0, 7.0));
        let three = Summary::of(ms([3, 1, 2])).unwrap();
        assert_eq!((three.p50, three.p90), (2.0, 3.0));
    }
}
