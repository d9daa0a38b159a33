use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    Device, Dtype, EngineArgs, KvCacheDtype, Location, LocationError, ModelSource, Places, ServeArgs,
    SourceError,
    otlp::{Endpoint, OtlpConfig},
};
use crate::telemetry::{LogError, LogFormat};

/// The model that ships with the server.
const EMBEDDED_MODEL: &str = "models/flan-t5-small-en";

/// The adapters that ship with the server.
const EMBEDDED_ADAPTERS: &str = "adapters";

/// Why the server cannot be configured so.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is wrong, or asked for help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The configuration file is not TOML.
    #[error("{} is not TOML: {cause}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        cause: String,
    },
    /// The configuration file has a key that means nothing.
    #[error("unknown key '{key}' in {}: the keys are {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The keys that it may have.
        known: String,
    },
    /// The configuration file has a value that its key does not take.
    #[error("{}, key '{key}': {cause}", path.display())]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with the value.
        cause: String,
    },
    /// No model was named and the embedded one is not there.
    #[error("there is no {EMBEDDED_MODEL} under {looked_in}: name a model with --model, or set DEPT_HOME")]
    NoModel {
        /// Where it was looked for.
        looked_in: String,
    },
    /// What `--model` names is no model.
    #[error("--model: {0}")]
    Model(#[from] SourceError),
    /// The named adapters are not there.
    #[error("--adapters {0}: no such folder")]
    AdaptersNotFound(Location),
    /// What `--adapters` names is no place for them.
    #[error("--adapters: {0}")]
    Adapters(#[from] LocationError),
    /// An address beyond loopback without the word that this is wanted.
    #[error(
        "{flag} {address} can be reached from other machines and this server asks for no keys: \
         give --api-keys (docs/tenants.md), listen on 127.0.0.1, or say --allow-anonymous"
    )]
    Anonymous {
        /// The flag that names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// Keys, and no keys.
    #[error("--api-keys and --allow-anonymous exclude each other: take one away")]
    KeysAndAnonymous,
    /// Half of a certificate.
    #[error("{given} needs {missing}: give both, or neither")]
    HalfTls {
        /// The flag that is there.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// Every page of every site could use the server.
    #[error(
        "--cors-origin * lets every web page use a server that asks for no keys: name origins, or give --api-keys"
    )]
    EveryOrigin,
    /// What is said to a collector that is not there.
    #[error("--otlp-headers needs --otlp-endpoint: give both, or neither")]
    HeadersForNobody,
    /// What is to be said to the collector is no list of headers.
    #[error("--otlp-headers: {0}")]
    Headers(String),
    /// What is to be logged is no filter.
    #[error("--log: {0}")]
    Log(LogError),
    /// A time of nothing.
    #[error("--{0} is 0: every connection would be cut off; give it some time")]
    NoTime(&'static str),
    /// Two doors at one address.
    #[error("{first} and {second} are both {address}: give each a port of its own")]
    SameAddress {
        /// The flag of one.
        first: &'static str,
        /// The flag of the other.
        second: &'static str,
        /// The address.
        address: SocketAddr,
    },
}

impl ConfigError {
    /// The process's exit code: 2 for the command line (0 where it asked for help), 78 for the configuration.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(error) => u8::try_from(error.exit_code()).unwrap_or(2),
            _ => 78,
        }
    }
}

/// A model, its adapters and its engine's limits, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// Where the model comes from.
    pub model: ModelSource,
    /// The model's name on the wire.
    pub model_name: String,
    /// Where adapters are, a folder that exists or a bucket; `None` serves the bare backbone.
    pub adapters: Option<Location>,
    /// How soon a change there is seen at the latest.
    pub adapters_interval: Duration,
    /// Memory for adapters, in bytes.
    pub adapter_host_bytes: u64,
    /// Where the model computes.
    pub device: Device,
    /// Whether a GPU's answers are the same to the bit whatever runs beside.
    pub batch_invariant: bool,
    /// Memory of a GPU for adapters, in bytes.
    pub adapter_device_bytes: u64,
    /// How the weights are held.
    pub dtype: Dtype,
    /// The folder in which packed weights are kept for the next start; `None` packs them at every start.
    pub weights_cache: Option<PathBuf>,
    /// Threads that compute, at least 1.
    pub threads: usize,
    /// Most rows of a prompt and most tokens of an answer, at least 1.
    pub max_model_len: usize,
    /// Most sequences in one step, at least 1.
    pub max_num_seqs: usize,
    /// Most rows in one step, at least 1.
    pub max_batch_tokens: usize,
    /// Memory for keys and values, in bytes.
    pub kv_cache_bytes: u64,
    /// How keys and values are kept.
    pub kv_cache_dtype: KvCacheDtype,
    /// Whether K/V rows that are in memory already are used again.
    pub prefix_cache: bool,
    /// Most sequences that wait, at least 1.
    pub queue_requests: usize,
    /// Most prompt tokens and tokens to generate that wait, at least 1.
    pub queue_tokens: usize,
}

impl EngineConfig {
    /// Checks the flags and looks up what they leave open.
    ///
    /// # Errors
    /// What is not there.
    pub fn new(args: EngineArgs, places: &Places) -> Result<Self, ConfigError> {
        let model = match args.model {
            Some(named) => named.parse()?,
            None => embedded_model(places)?,
        };
        let adapters = match args.adapters {
            Some(place) => {
                let place: Location = place.parse()?;
                if place.folder().is_some_and(|folder| !folder.is_dir()) {
                    return Err(ConfigError::AdaptersNotFound(place));
                }
                Some(place)
            }
            None => places.folder(EMBEDDED_ADAPTERS).map(Location::Folder),
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            model_name: args.model_name.unwrap_or_else(|| model.default_name()),
            model,
            adapters,
            adapters_interval: args.adapters_interval,
            adapter_host_bytes: args.adapter_host_bytes,
            device: args.device,
            batch_invariant: args.batch_invariant,
            adapter_device_bytes: args.adapter_device_bytes,
            dtype: args.dtype,
            weights_cache: match args.weights_cache {
                Some(shelf) => shelf.folder(),
                None => places.cache().map(|cache| cache.join("weights")),
            },
            threads: if args.threads == 0 { cores() } else { args.threads },
            max_model_len: args.max_model_len,
            max_num_seqs: args.max_num_seqs,
            max_batch_tokens: args.max_batch_tokens,
            kv_cache_bytes: args.kv_cache_bytes,
            kv_cache_dtype: args.kv_cache_dtype,
            prefix_cache: args.prefix_cache,
            queue_requests: args.queue_requests,
            queue_tokens: args.queue_tokens,
        })
    }
}

/// The model that ships with the server.
fn embedded_model(places: &Places) -> Result<ModelSource, ConfigError> {
    let looked_in = places.describe();
    places.folder(EMBEDDED_MODEL).map(ModelSource::Folder).ok_or(ConfigError::NoModel { looked_in })
}

/// A certificate chain and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

fn tls(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<TlsFiles>, ConfigError> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::HalfTls { given: "--tls-cert", missing: "--tls-key" }),
        (None, Some(_)) => Err(ConfigError::HalfTls { given: "--tls-key", missing: "--tls-cert" }),
    }
}

/// The doors for clients, by the flags that open them.
fn doors(args: &ServeArgs) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    let grpc = args.grpc.address().map(|address| ("--grpc", address));
    [("--http", args.http)].into_iter().chain(grpc)
}

fn otlp(
    endpoint: Option<Endpoint>,
    headers: Option<&str>,
    sample: f64,
) -> Result<Option<OtlpConfig>, ConfigError> {
    // Not by clap, which would repeat what may be a key.
    let headers = headers.map(str::parse).transpose().map_err(ConfigError::Headers)?;
    match (endpoint, headers) {
        (Some(endpoint), headers) => {
            Ok(Some(OtlpConfig { endpoint, headers: headers.unwrap_or_default(), sample }))
        }
        (None, Some(_)) => Err(ConfigError::HeadersForNobody),
        (None, None) => Ok(None),
    }
}

/// Two doors at one address, unless the system chooses their ports.
fn check_addresses(args: &ServeArgs) -> Result<(), ConfigError> {
    let mut seen = Vec::new();
    for (second, address) in doors(args).chain([("--admin", args.admin)]) {
        if let Some(&(first, _)) = seen.iter().find(|&&(_, other)| other == address && address.port() != 0) {
            return Err(ConfigError::SameAddress { first, second, address });
        }
        seen.push((second, address));
    }
    Ok(())
}

/// What would let in whom nobody meant to.
fn check_openness(args: &ServeArgs) -> Result<(), ConfigError> {
    let open = doors(args).find(|(_, address)| !address.ip().is_loopback());
    match (&args.api_keys, args.allow_anonymous, open) {
        (Some(_), true, _) => Err(ConfigError::KeysAndAnonymous),
        (None, false, Some((flag, address))) => Err(ConfigError::Anonymous { flag, address }),
        (None, ..) if args.cors_origin.iter().any(|origin| origin == "*") => Err(ConfigError::EveryOrigin),
        _ => Ok(()),
    }
}

fn connections(args: &ServeArgs) -> Result<ConnectionLimits, ConfigError> {
    let times = [
        ("head-timeout", args.head_timeout),
        ("idle-timeout", args.idle_timeout),
        ("stall-timeout", args.stall_timeout),
    ];
    if let Some((flag, _)) = times.iter().find(|(_, time)| time.is_zero()) {
        return Err(ConfigError::NoTime(flag));
    }
    Ok(ConnectionLimits {
        max_connections: args.max_connections,
        head_timeout: args.head_timeout,
        idle_timeout: args.idle_timeout,
        stall_timeout: args.stall_timeout,
    })
}

/// What a connection may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Most connections at once, at least 1. One more waits to be accepted.
    pub max_connections: usize,
    /// How long a TLS handshake, and then the head of a request, may take to arrive.
    pub head_timeout: Duration,
    /// How long a connection may do nothing between requests.
    pub idle_timeout: Duration,
    /// How long an answer may wait for a client that does not read it.
    pub stall_timeout: Duration,
}

/// Everything that `dept serve` is told, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServeConfig {
    /// The model and its engine.
    pub engine: EngineConfig,
    /// Address of the HTTP API.
    pub http: SocketAddr,
    /// Address of the gRPC API; `None` where there is none.
    pub grpc: Option<SocketAddr>,
    /// Address of health and metrics.
    pub admin: SocketAddr,
    /// The key file; without it everyone is the one tenant.
    pub api_keys: Option<PathBuf>,
    /// Whether anyone may ask on an address beyond loopback.
    pub allow_anonymous: bool,
    /// The certificate of the HTTP and gRPC addresses.
    pub tls: Option<TlsFiles>,
    /// The origins of the web pages that may read answers, or `*`.
    pub cors_origins: Vec<String>,
    /// What a connection may take.
    pub connections: ConnectionLimits,
    /// Whether the HTTP address answers /metrics.
    pub metrics_on_http: bool,
    /// Where to write the bound addresses.
    pub port_file: Option<PathBuf>,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Largest upload of an adapter, in bytes.
    pub max_adapter_bytes: usize,
    /// Where adapters may be loaded from by their path.
    pub adapter_load_root: Option<PathBuf>,
    /// How long requests are still taken once the server is to end.
    pub drain_delay: Duration,
    /// How long running requests may take to end.
    pub drain_timeout: Duration,
    /// Whether the server is ready only once every pinned adapter has been brought into memory.
    pub wait_for_pinned: bool,
    /// How long a step may take before `/health/live` says that the server is stuck.
    pub stuck_after: Duration,
    /// Where traces go; `None` traces nothing.
    pub otlp: Option<OtlpConfig>,
    /// What is logged.
    pub log: String,
    /// Whether prompts and answers are logged too.
    pub log_texts: bool,
    /// How a log line looks.
    pub log_format: LogFormat,
}

impl ServeConfig {
    /// Checks the flags and looks up what they leave open.
    ///
    /// # Errors
    /// What is not there, what contradicts, what would be unsafe.
    pub fn new(args: ServeArgs, places: &Places) -> Result<Self, ConfigError> {
        check_openness(&args)?;
        let connections = connections(&args)?;
        check_addresses(&args)?;
        Ok(Self {
            engine: EngineConfig::new(args.engine, places)?,
            http: args.http,
            grpc: args.grpc.address(),
            admin: args.admin,
            api_keys: args.api_keys,
            allow_anonymous: args.allow_anonymous,
            tls: tls(args.tls_cert, args.tls_key)?,
            cors_origins: args.cors_origin,
            connections,
            metrics_on_http: args.metrics_on_http,
            port_file: args.port_file,
            max_body_bytes: usize::try_from(args.max_body_bytes).unwrap_or(usize::MAX),
            max_adapter_bytes: usize::try_from(args.max_adapter_bytes).unwrap_or(usize::MAX),
            adapter_load_root: args.adapter_load_root,
            drain_delay: args.drain_delay,
            drain_timeout: args.drain_timeout,
            wait_for_pinned: args.wait_for_pinned,
            stuck_after: args.stuck_after,
            otlp: otlp(args.otlp_endpoint, args.otlp_headers.as_deref(), args.otlp_sample)?,
            log: args.log,
            log_texts: args.log_texts,
            log_format: args.log_format,
        })
    }
}
