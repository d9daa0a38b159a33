use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    EngineConfig, Location, LocationError, Places, ServeArgs, SourceError,
    engine::EMBEDDED_MODEL,
    otlp::{Endpoint, OtlpConfig},
};
use crate::telemetry::{LogError, LogFormat};

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
