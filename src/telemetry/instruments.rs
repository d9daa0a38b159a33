//! The kinds of metric, each with its labels as types: a label is looked up once a request, never once a token.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

use crate::domain::AdapterName;

/// Times in seconds, from 100 microseconds (a small model answers in single milliseconds) to 100 seconds.
const SECONDS: [f64; 19] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    25.0, 50.0, 100.0,
];

/// Counts in powers of two.
const SIZES: [f64; 14] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];

/// Adapters that get a label of their own in [`AdapterRequests`].
pub const ADAPTER_LABELS: usize = 100;

/// The files that are read anew while the server runs.
const RELOADED: [&str; 3] = ["api_keys", "tls", "log"];

const UNIQUE: &str = "every metric's name is unique and legal, which a test holds";

/// A kind of metric that a field of [`super::Metrics`] can have.
pub(super) trait Instrument: Sized {
    /// The type on `/metrics`.
    const KIND: &'static str;
    /// Label names, in order.
    const LABELS: &'static [&'static str] = &[];

    /// Makes the metric and registers it.
    fn register(registry: &Registry, name: &str, help: &str) -> Self;
}

pub(super) fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let collector = made.expect(UNIQUE);
    registry.register(Box::new(collector.clone())).expect(UNIQUE);
    collector
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(buckets.to_vec())
}

impl Instrument for IntCounter {
    const KIND: &'static str = "counter";

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        registered(registry, Self::new(name, help))
    }
}

impl Instrument for IntGauge {
    const KIND: &'static str = "gauge";

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        registered(registry, Self::new(name, help))
    }
}

impl Instrument for Gauge {
    const KIND: &'static str = "gauge";

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        registered(registry, Self::new(name, help))
    }
}

/// A distribution of times.
#[derive(Debug, Clone)]
pub struct Seconds(Histogram);

impl Seconds {
    /// Adds one time.
    pub fn observe(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }
}

impl Instrument for Seconds {
    const KIND: &'static str = "histogram";

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        Self(registered(registry, Histogram::with_opts(histogram(name, help, &SECONDS))))
    }
}

/// A distribution of counts.
#[derive(Debug, Clone)]
pub struct Sizes(Histogram);

impl Sizes {
    /// Adds one count.
    pub fn observe(&self, size: usize) {
        self.0.observe(size as f64);
    }
}

impl Instrument for Sizes {
    const KIND: &'static str = "histogram";

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        Self(registered(registry, Histogram::with_opts(histogram(name, help, &SIZES))))
    }
}

/// Requests by route and by how they ended.
#[derive(Debug, Clone)]
pub struct Outcomes(IntCounterVec);

impl Outcomes {
    /// One request to `endpoint` (the route, as `/v1/generate`) ended with `outcome`: `ok`, `cancelled` or an error's code.
    pub fn count(&self, endpoint: &str, outcome: &str) {
        self.0.with_label_values(&[endpoint, outcome]).inc();
    }
}

impl Instrument for Outcomes {
    const KIND: &'static str = "counter";
    const LABELS: &'static [&'static str] = &["endpoint", "outcome"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        Self(registered(registry, IntCounterVec::new(Opts::new(name, help), Self::LABELS)))
    }
}

/// Requests turned away, by reason.
#[derive(Debug, Clone)]
pub struct Rejections(IntCounterVec);

impl Rejections {
    /// One request was turned away for `reason`, an error's code.
    pub fn count(&self, reason: &str) {
        self.0.with_label_values(&[reason]).inc();
    }
}

impl Instrument for Rejections {
    const KIND: &'static str = "counter";
    const LABELS: &'static [&'static str] = &["reason"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        Self(registered(registry, IntCounterVec::new(Opts::new(name, help), Self::LABELS)))
    }
}

/// What a step of the engine works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// An encoder reads prompts.
    Encode,
    /// A decoder reads prompts.
    Prefill,
    /// One token for every running sequence.
    Decode,
}

/// Times of steps, by phase.
#[derive(Debug, Clone)]
pub struct Steps([Histogram; 3]);

impl Steps {
    /// One step worked for `time` on `phase`.
    pub fn observe(&self, phase: Phase, time: Duration) {
        self.0[phase as usize].observe(time.as_secs_f64());
    }
}

impl Instrument for Steps {
    const KIND: &'static str = "histogram";
    const LABELS: &'static [&'static str] = &["phase"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = HistogramVec::new(histogram(name, help, &SECONDS), Self::LABELS);
        let family = registered(registry, family);
        Self(["encode", "prefill", "decode"].map(|phase| family.with_label_values(&[phase])))
    }
}

/// Adapters held, by where.
#[derive(Debug, Clone)]
pub struct Adapters {
    /// In a GPU's memory.
    pub device: IntGauge,
    /// Ready in the host's memory.
    pub host: IntGauge,
    /// Known in the store.
    pub store: IntGauge,
}

impl Instrument for Adapters {
    const KIND: &'static str = "gauge";
    const LABELS: &'static [&'static str] = &["tier"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntGaugeVec::new(Opts::new(name, help), Self::LABELS));
        let [device, host, store] = ["device", "host", "store"].map(|tier| family.with_label_values(&[tier]));
        Self { device, host, store }
    }
}

/// Bytes of adapters, by where.
#[derive(Debug, Clone)]
pub struct AdapterBytes {
    /// In a GPU's memory.
    pub device: IntGauge,
    /// In the host's memory.
    pub host: IntGauge,
}

impl Instrument for AdapterBytes {
    const KIND: &'static str = "gauge";
    const LABELS: &'static [&'static str] = &["tier"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntGaugeVec::new(Opts::new(name, help), Self::LABELS));
        Self { device: family.with_label_values(&["device"]), host: family.with_label_values(&["host"]) }
    }
}

/// Adapters that gave their place to others, by where.
#[derive(Debug, Clone)]
pub struct Evictions {
    /// In a GPU's memory.
    pub device: IntCounter,
    /// In the host's memory.
    pub host: IntCounter,
}

impl Instrument for Evictions {
    const KIND: &'static str = "counter";
    const LABELS: &'static [&'static str] = &["tier"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntCounterVec::new(Opts::new(name, help), Self::LABELS));
        Self { device: family.with_label_values(&["device"]), host: family.with_label_values(&["host"]) }
    }
}

/// Adapter loads, by how they ended.
#[derive(Debug, Clone)]
pub struct Loads {
    /// The adapter is ready.
    pub ok: IntCounter,
    /// Its files were refused.
    pub error: IntCounter,
}

impl Instrument for Loads {
    const KIND: &'static str = "counter";
    const LABELS: &'static [&'static str] = &["outcome"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntCounterVec::new(Opts::new(name, help), Self::LABELS));
        Self { ok: family.with_label_values(&["ok"]), error: family.with_label_values(&["error"]) }
    }
}

/// Spans of traces, by what became of them.
#[derive(Debug, Clone)]
pub struct TraceSpans {
    /// The collector has them.
    pub sent: IntCounter,
    /// They were thrown away.
    pub lost: IntCounter,
}

impl Instrument for TraceSpans {
    const KIND: &'static str = "counter";
    const LABELS: &'static [&'static str] = &["outcome"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntCounterVec::new(Opts::new(name, help), Self::LABELS));
        Self { sent: family.with_label_values(&["sent"]), lost: family.with_label_values(&["lost"]) }
    }
}

/// Requests by adapter. The first `ADAPTER_LABELS` adapters keep a label of their own until restart, later ones
/// share `other`: thousands of adapters must not become thousands of series.
#[derive(Debug)]
pub struct AdapterRequests {
    family: IntCounterVec,
    given: Mutex<HashMap<AdapterName, IntCounter>>,
}

impl AdapterRequests {
    /// So many sequences run with `adapter`.
    pub fn count_many(&self, adapter: &AdapterName, sequences: u64) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = given.get(adapter) {
            counter.inc_by(sequences);
        } else if given.len() < ADAPTER_LABELS {
            let counter = self.family.with_label_values(&[adapter.as_str()]);
            counter.inc_by(sequences);
            given.insert(adapter.clone(), counter);
        } else {
            self.family.with_label_values(&["other"]).inc_by(sequences);
        }
    }
}

impl Instrument for AdapterRequests {
    const KIND: &'static str = "counter";
    const LABELS: &'static [&'static str] = &["adapter"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntCounterVec::new(Opts::new(name, help), Self::LABELS));
        Self { family, given: Mutex::default() }
    }
}

/// Files read anew while the server runs, by file and by how that ended.
#[derive(Debug, Clone)]
pub struct Reloads(IntCounterVec);

impl Reloads {
    /// `file` (`api_keys`, `tls`, `log`) was read anew: whether it was sound, or what it said before stays.
    pub fn count(&self, file: &str, sound: bool) {
        self.0.with_label_values(&[file, if sound { "ok" } else { "error" }]).inc();
    }
}

impl Instrument for Reloads {
    const KIND: &'static str = "counter";
    const LABELS: &'static [&'static str] = &["file", "outcome"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let reloads = Self(registered(registry, IntCounterVec::new(Opts::new(name, help), Self::LABELS)));
        // A counter that first appears with its first failure shows no increase, and no alert would see it.
        for (file, outcome) in RELOADED.iter().flat_map(|file| [(file, "ok"), (file, "error")]) {
            reloads.0.with_label_values(&[*file, outcome]);
        }
        reloads
    }
}

/// A constant 1 whose labels say what runs.
#[derive(Debug, Clone)]
pub struct BuildInfo(IntGauge);

impl Deref for BuildInfo {
    type Target = IntGauge;

    fn deref(&self) -> &IntGauge {
        &self.0
    }
}

impl Instrument for BuildInfo {
    const KIND: &'static str = "gauge";
    const LABELS: &'static [&'static str] = &["version", "target"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntGaugeVec::new(Opts::new(name, help), Self::LABELS));
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        let info = family.with_label_values(&[env!("CARGO_PKG_VERSION"), &target]);
        info.set(1);
        Self(info)
    }
}
