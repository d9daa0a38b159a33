//! What the allocator holds: beside the process's resident memory it tells a leak from memory that is kept for later.

use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::instruments::{Instrument, registered};

/// Bytes that the C library's allocator has handed out, and bytes that it keeps free; read when somebody asks, since no event
/// could keep them up to date. Other C libraries than GNU's (2.33 of 2021 or newer) don't tell: there the metric has no series.
#[derive(Debug, Clone)]
pub struct AllocatorBytes(IntGaugeVec);

/// What the allocator says of itself, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    used: usize,
    free: usize,
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library is asked for its counts")]
fn held() -> Option<Held> {
    // SAFETY: it takes no argument and returns numbers by value; the library locks its arenas itself.
    let info = unsafe { libc::mallinfo2() };
    // Large pieces are mapped one by one and stand beside the arenas.
    Some(Held { used: info.uordblks + info.hblkhd, free: info.fordblks })
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn held() -> Option<Held> {
    None
}

impl Collector for AllocatorBytes {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(Held { used, free }) = held() {
            for (state, bytes) in [("used", used), ("free", free)] {
                self.0.with_label_values(&[state]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
        self.0.collect()
    }
}

impl Instrument for AllocatorBytes {
    const KIND: &'static str = "gauge";
    const LABELS: &'static [&'static str] = &["state"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        registered(registry, IntGaugeVec::new(Opts::new(name, help), Self::LABELS).map(Self))
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::hint::black_box;

    use super::held;

    #[test]
    fn what_is_allocated_is_used_and_no_more_once_it_is_given_back() {
        // Far more than what other tests of this process take and give back meanwhile.
        const SIZE: usize = 1 << 30;
        let before = held().unwrap().used;
        let piece = black_box(Vec::<u8>::with_capacity(SIZE));
        let during = held().unwrap().used;
        drop(piece);
        let after = held().unwrap().used;
        assert!(during > before + SIZE / 2, "{before} {during}");
        assert!(after < during - SIZE / 2, "{during} {after}");
    }
}
