use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, builder::BoolishValueParser};

use super::{
    otlp::{Endpoint, share},
    units::{CpuIsa, Device, Door, Dtype, KvCacheDtype, Shelf, bytes, count, duration, origin},
};
use crate::telemetry::LogFormat;

/// The flags of `dept serve`: each has a `DEPT_…` variable and a key in `dept.toml`, which is its name with `_` for `-`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The configuration file; `dept.toml` in the working directory when there is one.
    #[arg(long, env = "DEPT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The model and its engine.
    #[command(flatten)]
    pub engine: EngineArgs,

    /// The address of the HTTP API. Port 0 takes a free one.
    #[arg(long, env = "DEPT_HTTP", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,

    /// The address of the gRPC API (docs/grpc.md), or off. Port 0 takes a free one.
    #[arg(long, env = "DEPT_GRPC", value_name = "ADDR|off", default_value = "127.0.0.1:50051")]
    pub grpc: Door,

    /// The address of health and metrics, which answers while the engine is busy. Port 0 takes a free one.
    #[arg(long, env = "DEPT_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:8081")]
    pub admin: SocketAddr,

    /// The tenants and the hashes of their keys, as TOML (docs/tenants.md; `dept key new` makes a key). Read anew at SIGHUP
    /// and when it changes; a file that is not sound changes nothing. Without it there is one tenant, on loopback only.
    #[arg(long, env = "DEPT_API_KEYS", value_name = "FILE")]
    pub api_keys: Option<PathBuf>,

    /// Serve anyone who can reach an address beyond loopback, without keys: they may do everything.
    #[arg(
        long, env = "DEPT_ALLOW_ANONYMOUS", value_name = "BOOL", value_parser = BoolishValueParser::new(),
        default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true
    )]
    pub allow_anonymous: bool,

    /// The certificate chain of the HTTP and gRPC addresses, as PEM; with --tls-key. Read anew at SIGHUP and when it changes.
    #[arg(long, env = "DEPT_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, as PEM.
    #[arg(long, env = "DEPT_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Web pages of these origins (`https://app.example`) may read answers; commas between several. * is all, with keys only.
    #[arg(long, env = "DEPT_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    pub cors_origin: Vec<String>,

    /// Answer /metrics on the HTTP address too, where clients can read it; with keys, those of the admin scope.
    #[arg(
        long, env = "DEPT_METRICS_ON_HTTP", value_name = "BOOL", value_parser = BoolishValueParser::new(),
        default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true
    )]
    pub metrics_on_http: bool,

    /// Write the bound addresses as JSON to this file once the server is ready.
    #[arg(long, env = "DEPT_PORT_FILE", value_name = "FILE")]
    pub port_file: Option<PathBuf>,

    /// Largest request body; one more byte is refused with 413.
    #[arg(long, env = "DEPT_MAX_BODY_BYTES", value_name = "SIZE", default_value = "1MiB", value_parser = bytes)]
    pub max_body_bytes: u64,

    /// Largest upload of an adapter; one more byte is refused with 413. Four are read at once, so they take four times this.
    #[arg(long, env = "DEPT_MAX_ADAPTER_BYTES", value_name = "SIZE", default_value = "64MiB", value_parser = bytes)]
    pub max_adapter_bytes: u64,

    /// Where POST /v1/load_lora_adapter may load adapters from: folders below this one, named from it or whole. Every key with
    /// adapters:write reads all of them. Without it, adapters are only uploaded.
    #[arg(long, env = "DEPT_ADAPTER_LOAD_ROOT", value_name = "DIR")]
    pub adapter_load_root: Option<PathBuf>,

    /// Most connections to the HTTP address, and as many to the gRPC address; one more waits to be accepted. Lowered to what the limit on open files leaves.
    #[arg(long, env = "DEPT_MAX_CONNECTIONS", value_name = "N", default_value = "4096", value_parser = count)]
    pub max_connections: usize,

    /// How long a TLS handshake, and then a request's head, may take to arrive; slower clients are cut off.
    #[arg(long, env = "DEPT_HEAD_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub head_timeout: Duration,

    /// How long a connection may do nothing between two requests.
    #[arg(long, env = "DEPT_IDLE_TIMEOUT", value_name = "TIME", default_value = "75s", value_parser = duration)]
    pub idle_timeout: Duration,

    /// How long an answer may wait for a client that does not read it; then it is cancelled.
    #[arg(long, env = "DEPT_STALL_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub stall_timeout: Duration,

    /// After SIGTERM, how long requests are still taken while /health/ready says 503 already, so that load balancers turn to
    /// other replicas first. Kubernetes' preStop sleep does the same from outside.
    #[arg(long, env = "DEPT_DRAIN_DELAY", value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub drain_delay: Duration,

    /// After that, how long running requests may take to end; what is left then fails with 503. A second SIGTERM ends it.
    #[arg(long, env = "DEPT_DRAIN_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,

    /// After the start, answer /health/ready with 503 until every pinned adapter is held in memory. Without this flag a pinned
    /// adapter that can't be loaded makes no server wait, since a tenant may have pinned it; readiness tells of it. For clusters
    /// where all who may pin are trusted.
    #[arg(
        long, env = "DEPT_WAIT_FOR_PINNED", value_name = "BOOL", value_parser = BoolishValueParser::new(),
        default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true
    )]
    pub wait_for_pinned: bool,

    /// How long one step of the engine may take before /health/live answers 503, so that whoever watches the server starts it
    /// anew. A step of a large model on few cores takes seconds; none takes this long.
    #[arg(long, env = "DEPT_STUCK_AFTER", value_name = "TIME", default_value = "2m", value_parser = duration)]
    pub stuck_after: Duration,

    /// Send traces to this OpenTelemetry collector, as protobuf over HTTP (http://collector:4318; /v1/traces is added). They
    /// hold no prompts and no texts. Nothing is traced without.
    #[arg(long, env = "DEPT_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<Endpoint>,

    /// Headers for the collector, such as a key: KEY=VALUE,KEY=VALUE, values percent-encoded. Better as a variable, since
    /// others can see a command line.
    #[arg(long, env = "DEPT_OTLP_HEADERS", value_name = "HEADERS", hide_env_values = true)]
    pub otlp_headers: Option<String>,

    /// The share of the requests to trace, 0 to 1. A caller that sends a traceparent has decided for its own.
    #[arg(long, env = "DEPT_OTLP_SAMPLE", value_name = "SHARE", default_value = "1", value_parser = share)]
    pub otlp_sample: f64,

    /// What is logged to stderr: a level, or targets with levels (info,dept::engine=debug). Never prompts or texts, but for
    /// --log-texts. As a key of the configuration file it is read anew at SIGHUP and when the file changes.
    #[arg(long, env = "DEPT_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// Log every prompt and every answer too, of all tenants, as info of the target dept::texts. For finding out what clients
    /// send; whoever reads the log reads them.
    #[arg(
        long, env = "DEPT_LOG_TEXTS", value_name = "BOOL", value_parser = BoolishValueParser::new(),
        default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true
    )]
    pub log_texts: bool,

    /// How a log line looks: text for people, json for collectors.
    #[arg(long, env = "DEPT_LOG_FORMAT", value_enum, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// The flags that choose a model, its adapters and its engine's limits; `dept serve` and `dept generate` share them.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// A model's folder or file, or the id of a model on the hub (org/name), which is fetched once. Without it the
    /// embedded model is looked for under `$DEPT_HOME`, the working directory and `<executable>/../share/dept`.
    #[arg(long, env = "DEPT_MODEL", value_name = "PATH|HUB_ID")]
    pub model: Option<String>,

    /// The model's name on the wire; no adapter can bear it. Without it, the last part of the model's path.
    #[arg(long, env = "DEPT_MODEL_NAME", value_name = "NAME")]
    pub model_name: Option<String>,

    /// Where adapters are: a folder, whose sub-folders are served to all tenants and whose `.store` takes uploads; or
    /// s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX for uploads, which several servers may share. Without it,
    /// `adapters/` is looked for as the model is.
    #[arg(long, env = "DEPT_ADAPTERS", value_name = "DIR|URL")]
    pub adapters: Option<String>,

    /// The time within which a change by another server, or in the adapters' folder, is seen.
    #[arg(long, env = "DEPT_ADAPTERS_INTERVAL", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub adapters_interval: Duration,

    /// Memory for adapters. Those used least recently give their place to others; pinned ones and those in use stay.
    #[arg(long, env = "DEPT_ADAPTER_HOST_BYTES", value_name = "SIZE", default_value = "1GiB", value_parser = bytes)]
    pub adapter_host_bytes: u64,

    /// Memory of a GPU for adapters; those used least recently give their place to others. Nothing on the CPU.
    #[arg(long, env = "DEPT_ADAPTER_DEVICE_BYTES", value_name = "SIZE", default_value = "256MiB", value_parser = bytes)]
    pub adapter_device_bytes: u64,

    /// Where the model computes: auto, cpu or cuda:N. auto is the first GPU that this build can use, else the CPU.
    #[arg(long, env = "DEPT_DEVICE", value_name = "DEVICE", default_value = "auto")]
    pub device: Device,

    /// How the weights are held: auto goes by the file; fine does too but computes a GGUF file's block formats nearly as f32
    /// would; i8 is fast; f32 is exact, and holds weights of 4 or 8 bits in 32. On a GPU auto is bf16.
    #[arg(long, env = "DEPT_DTYPE", value_enum, value_name = "DTYPE", default_value = "auto")]
    pub dtype: Dtype,

    /// On a GPU: a request's answer is the same to the bit whatever runs beside it, at the price of slower steps. On the CPU it
    /// always is.
    #[arg(
        long, env = "DEPT_BATCH_INVARIANT", value_name = "BOOL", value_parser = BoolishValueParser::new(),
        default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true
    )]
    pub batch_invariant: bool,

    /// Where packed weights are kept for the next start, which then maps them and packs nothing: a folder, or off. Without it,
    /// `dept/weights` in `$XDG_CACHE_HOME` or `$HOME/.cache`. Each file is named by what is in the model's file; those that nobody
    /// has used for 30 days go.
    #[arg(long, env = "DEPT_WEIGHTS_CACHE", value_name = "DIR|off")]
    pub weights_cache: Option<Shelf>,

    /// Threads that compute; 0 takes every core. More threads than cores make every step slower.
    #[arg(long, env = "DEPT_THREADS", value_name = "N", default_value = "0")]
    pub threads: usize,

    /// The instructions that linear maps on the CPU are computed with; auto takes the fastest of the machine, and the log of the
    /// start tells which. Answers are the same bits with all of them; the others are for comparing.
    #[arg(long, env = "DEPT_CPU_ISA", value_enum, value_name = "ISA", default_value = "auto")]
    pub cpu_isa: CpuIsa,

    /// Most rows (tokens and soft-prompt rows) of a sequence, prompt and answer together; of an encoder-decoder, whose
    /// prompt and answer are apart, of each. Never more than the model was made for. More take more K/V memory.
    #[arg(long, env = "DEPT_MAX_MODEL_LEN", value_name = "N", default_value = "1024", value_parser = count)]
    pub max_model_len: usize,

    /// Most sequences in one step. More raise throughput and the time between two tokens.
    #[arg(long, env = "DEPT_MAX_NUM_SEQS", value_name = "N", default_value = "32", value_parser = count)]
    pub max_num_seqs: usize,

    /// Most rows (tokens and soft-prompt rows) in one step. More raise throughput and the time between two tokens.
    #[arg(long, env = "DEPT_MAX_BATCH_TOKENS", value_name = "N", default_value = "512", value_parser = count)]
    pub max_batch_tokens: usize,

    /// Memory for keys and values. It bounds how many tokens can be in work at once.
    #[arg(long, env = "DEPT_KV_CACHE_BYTES", value_name = "SIZE", default_value = "256MiB", value_parser = bytes)]
    pub kv_cache_bytes: u64,

    /// How keys and values are kept: f32 is exact, f16 takes half the memory and less time to read. auto is f16 where the weights
    /// are of 8 bits or fewer, in the model's file or by --dtype, else f32. On a GPU they are as the weights.
    #[arg(long, env = "DEPT_KV_CACHE_DTYPE", value_enum, value_name = "DTYPE", default_value = "auto")]
    pub kv_cache_dtype: KvCacheDtype,

    /// Whether K/V rows that an earlier request has left are used again where that is exact: soft prompts of decoder-only
    /// models across all requests, texts inside a tenant. Answers are the same bits either way.
    #[arg(long, env = "DEPT_PREFIX_CACHE", value_name = "BOOL", default_value = "true", action = clap::ArgAction::Set)]
    pub prefix_cache: bool,

    /// Most prompt tokens and tokens to generate that wait, all queued sequences together; more are refused with 429.
    #[arg(long, env = "DEPT_QUEUE_TOKENS", value_name = "N", default_value = "262144", value_parser = count)]
    pub queue_tokens: usize,

    /// Most sequences that wait; one more is refused with 429. A longer queue refuses later and answers later.
    #[arg(long, env = "DEPT_QUEUE_REQUESTS", value_name = "N", default_value = "256", value_parser = count)]
    pub queue_requests: usize,
}
