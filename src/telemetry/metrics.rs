use prometheus::{Gauge, IntCounter, IntGauge, Registry, TextEncoder};

use super::{
    allocator::AllocatorBytes,
    instruments::{
        AdapterBytes, AdapterRequests, Adapters, BuildInfo, Evictions, Instrument, Loads, Outcomes,
        Rejections, Reloads, Seconds, Sizes, Steps, TraceSpans,
    },
    live::{LoraRequests, StepAge},
    missing_pins::MissingPins,
    store_faults::StoreFaults,
    tenants::{TenantRequests, TenantTokens},
};

/// What is publicly said of one metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its name on `/metrics`.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Label names, in order.
    pub labels: &'static [&'static str],
    /// Its help text.
    pub help: String,
}

/// What the system counts of this process, as every Prometheus client names it: name, type, help.
const PROCESS: [(&str, &str, &str); 7] = [
    ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors."),
    ("process_open_fds", "gauge", "Number of open file descriptors."),
    ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    ("process_threads", "gauge", "Number of OS threads in the process."),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
];

/// Declares [`Metrics`]: a field's doc comment is the metric's help text.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $name:literal,)+) => {
        /// Every metric of the server. A field's doc comment is its help text on `/metrics`.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $kind,)+
        }

        impl Default for Metrics {
            fn default() -> Self {
                let registry = Registry::new();
                register_process(&registry);
                Self {
                    $($field: <$kind>::register(&registry, $name, concat!($($help),+).trim()),)+
                    registry,
                }
            }
        }

        impl Metrics {
            /// What is publicly said of every metric, in order; those of the process, which only Linux counts, come last.
            pub fn list() -> Vec<Listing> {
                let own = [$(Listing {
                    name: $name,
                    kind: <$kind as Instrument>::KIND,
                    labels: <$kind as Instrument>::LABELS,
                    help: concat!($($help),+).trim().to_owned(),
                },)+];
                let process = PROCESS.map(|(name, kind, help)| Listing { name, kind, labels: &[], help: help.into() });
                own.into_iter().chain(process).collect()
            }
        }
    };
}

metrics! {
    /// HTTP requests that ended, by route and outcome (ok, cancelled or an error's code).
    requests: Outcomes = "dept_requests_total",
    /// Time of a generation request from its head to the last byte of its response.
    request_duration: Seconds = "dept_request_duration_seconds",
    /// Time of a sequence from submission to its first token.
    time_to_first_token: Seconds = "dept_time_to_first_token_seconds",
    /// Time between two tokens of a sequence.
    inter_token_latency: Seconds = "dept_inter_token_latency_seconds",
    /// Time of a sequence from submission to the first step that works on it.
    queue_duration: Seconds = "dept_queue_duration_seconds",
    /// Sequences that have started and not ended.
    requests_running: IntGauge = "dept_requests_running",
    /// Sequences that wait to start.
    requests_waiting: IntGauge = "dept_requests_waiting",
    /// Sequences in a step.
    batch_sequences: Sizes = "dept_batch_sequences",
    /// Rows (tokens and soft-prompt rows) in a step.
    batch_tokens: Sizes = "dept_batch_tokens",
    /// Time of a step, by what it works on (encode, prefill, decode).
    step_duration: Steps = "dept_step_duration_seconds",
    /// How long the engine has been at its present step, in seconds; 0 between steps. A stuck step makes it grow without end.
    step_age: StepAge = "dept_engine_step_age_seconds",
    /// Prompt tokens read.
    prompt_tokens: IntCounter = "dept_prompt_tokens_total",
    /// Soft-prompt rows read.
    virtual_tokens: IntCounter = "dept_virtual_tokens_total",
    /// Tokens generated.
    generated_tokens: IntCounter = "dept_generated_tokens_total",
    /// Fraction of the K/V blocks in use, 0 to 1.
    kv_cache_usage: Gauge = "dept_kv_cache_usage_ratio",
    /// Prompt rows, soft prompts counted, that were looked up in the prefix cache.
    prefix_cache_queries: IntCounter = "dept_prefix_cache_queries_total",
    /// Prompt rows whose K/V were there already: not computed again.
    prefix_cache_hits: IntCounter = "dept_prefix_cache_hits_total",
    /// Sequences that gave their K/V blocks back and were computed again.
    preemptions: IntCounter = "dept_preemptions_total",
    /// Adapters held, by tier (device, host, store).
    adapters: Adapters = "dept_adapters",
    /// Bytes of adapters held, by tier (device, host).
    adapter_bytes: AdapterBytes = "dept_adapter_bytes",
    /// Adapters that gave their place in memory to others, by tier (device, host).
    adapter_evictions: Evictions = "dept_adapter_evictions_total",
    /// Time from the last byte of an upload to the moment at which requests get the new version.
    adapter_swap_duration: Seconds = "dept_adapter_swap_duration_seconds",
    /// Adapter loads that ended, by outcome (ok, error).
    adapter_loads: Loads = "dept_adapter_loads_total",
    /// Whether the adapter store fails, by operation (list, read, write) and reason (unreachable, denied, full): 1 while it does.
    /// Adapters in memory are served on.
    store_faults: StoreFaults = "dept_adapter_store_fault",
    /// Pinned adapters that are not held in memory, by reason: error (they can't be loaded), capacity (more is pinned than half
    /// of --adapter-host-bytes, or adapters in use fill it).
    missing_pins: MissingPins = "dept_adapter_pins_missing",
    /// Sequences by adapter; after the first 100 adapters the rest counts as other.
    adapter_requests: AdapterRequests = "dept_adapter_requests_total",
    /// The adapters that sequences run with and wait for now, for the Gateway API Inference Extension: one series, whose
    /// value is the Unix time. At most 64 of each are named.
    lora_requests: LoraRequests = "dept_lora_requests_info",
    /// Requests turned away before they started, by reason (an error's code).
    rejected: Rejections = "dept_rejected_total",
    /// API requests that ended, by tenant and outcome (ok, cancelled or an error's code); a server without keys has one
    /// tenant, default.
    tenant_requests: TenantRequests = "dept_tenant_requests_total",
    /// Tokens by tenant and kind (prompt, virtual, generated); a prompt counts once, however many choices it has.
    tenant_tokens: TenantTokens = "dept_tenant_tokens_total",
    /// Bytes of the C library's allocator, by state: used is handed out, touched or not (all of --kv-cache-bytes from the start),
    /// free is kept for later. Nothing where the library does not tell.
    allocator_bytes: AllocatorBytes = "dept_allocator_bytes",
    /// Files read anew while the server ran (api_keys, tls, log), by outcome (ok, error): after an error the old ones stay.
    reloads: Reloads = "dept_reloads_total",
    /// Spans of traces (`--otlp-endpoint`), by outcome: sent to the collector, or lost because it did not take them in time.
    trace_spans: TraceSpans = "dept_trace_spans_total",
    /// Always 1; the labels say what runs.
    build_info: BuildInfo = "dept_build_info",
}

/// Registers [`PROCESS`].
fn register_process(registry: &Registry) {
    #[cfg(target_os = "linux")]
    registry
        .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
        .expect("a new registry knows no other process");
    #[cfg(not(target_os = "linux"))]
    let _ = registry;
}

impl Metrics {
    /// The exposition text of `/metrics`.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("every gathered family has a metric, so that the text encoder takes it")
    }
}
