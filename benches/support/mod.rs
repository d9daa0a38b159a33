//! What the benchmarks share: criterion with a memory for each one's best time, so that ratios come from one run.

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};

/// Runs benchmarks and remembers their best times.
pub struct Bench {
    criterion: Criterion,
    best: BTreeMap<(String, String), Duration>,
}

impl Bench {
    /// With the command line's filters; short runs, because the best time counts.
    pub fn new() -> Self {
        let criterion = Criterion::default()
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1))
            .sample_size(20)
            .configure_from_args();
        Self { criterion, best: BTreeMap::new() }
    }

    /// Measures `routine`, which runs so many times and returns how long that took; a run has `elements` of the case.
    pub fn custom(
        &mut self,
        case: &str,
        kind: &str,
        elements: u64,
        mut routine: impl FnMut(u64) -> Duration,
    ) {
        let mut best = Duration::MAX;
        let mut group = self.criterion.benchmark_group(case);
        group.throughput(Throughput::Elements(elements));
        group.bench_function(BenchmarkId::from_parameter(kind), |bencher| {
            bencher.iter_custom(|iterations| {
                let took = routine(iterations);
                best = best.min(took.div_f64(iterations as f64));
                took
            });
        });
        group.finish();
        if best < Duration::MAX {
            self.best.insert((case.to_owned(), kind.to_owned()), best);
        }
    }

    /// Measures a call.
    pub fn call<T>(&mut self, case: &str, kind: &str, elements: u64, mut routine: impl FnMut() -> T) {
        self.custom(case, kind, elements, |iterations| {
            let start = Instant::now();
            for _ in 0..iterations {
                black_box(routine());
            }
            start.elapsed()
        });
    }

    /// The best time in seconds, unless a filter left it out.
    pub fn seconds(&self, case: &str, kind: &str) -> Option<f64> {
        self.best.get(&(case.to_owned(), kind.to_owned())).map(Duration::as_secs_f64)
    }

    /// How many times faster `kind` is than `other`, in words.
    pub fn ratio(&self, case: &str, kind: &str, other: &str) -> String {
        match (self.seconds(case, kind), self.seconds(case, other)) {
            (Some(kind), Some(other)) => format!("{:.2}x", other / kind),
            _ => "-".to_owned(),
        }
    }

    /// Criterion's last words.
    pub fn finish(self) {
        self.criterion.final_summary();
    }
}

/// A fixed, patternless number in -1..1.
pub fn noise(index: usize) -> f32 {
    let mixed = (index as u32).wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995;
    (mixed.wrapping_mul(mixed >> 15 | 1) >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// So many of them, none shared between different `from`.
pub fn noises(from: usize, count: usize) -> Vec<f32> {
    (from..from + count).map(noise).collect()
}
