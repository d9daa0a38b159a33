//! Builds the parts, connects them, and drains them: the life of `dept serve`.

mod admin;
mod backbone;
mod descriptors;
mod load;
mod opening;
mod place;
mod resident;
mod signal;
mod tls;
mod traces;
mod trainable;
mod watch;
mod weights_cache;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::TcpListener;

use opening::{Addresses, Opening};
use tls::Certificate;
use traces::Tracing;

pub use load::{LoadModelError, LoadedModel, load_model};
pub use resident::Resident;
pub use tls::TlsError;
pub use trainable::Trainable;
pub use watch::Watched;

use crate::{
    adapter::{CatalogueError, LoadRoot},
    api::{
        Readiness, State,
        grpc::{self, GrpcOptions},
        http::{
            self, Hosts, HttpOptions, Origins,
            server::{self, Phase},
        },
    },
    config::ServeConfig,
    telemetry::Metrics,
    tenancy::{Gate, KeyFileError},
};

/// How long clients may take to read what is left for them, once the engine has ended.
const GRACE: Duration = Duration::from_secs(5);

/// The same, after a second signal.
const HURRY: Duration = Duration::from_millis(500);

/// Why the server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address can't be listened on.
    #[error("can't listen on {address} ({flag}): {source}; choose a free port, or port 0 for any")]
    Bind {
        /// The flag that names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The model can't be loaded.
    #[error(transparent)]
    Model(#[from] LoadModelError),
    /// The key file can't be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The place for adapters can't be used.
    #[error(transparent)]
    Adapters(#[from] CatalogueError),
    /// The folder to load adapters from can't be used.
    #[error("--adapter-load-root '{}': {source}; name a folder that is there", path.display())]
    LoadRoot {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The first step failed.
    #[error("the model does not answer: {0}")]
    WarmUp(String),
    /// The port file can't be written.
    #[error("can't write --port-file '{}': {source}", path.display())]
    PortFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine's thread has panicked.
    #[error("the engine died: the log above has the panic. Please report it")]
    EngineDied,
    /// A thread, a listener or a signal handler failed.
    #[error("the system refused a resource: {0}")]
    System(#[from] std::io::Error),
}

impl AppError {
    /// The process's exit code: 78 where another configuration would help, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. }
            | Self::Model(_)
            | Self::Keys(_)
            | Self::Tls(_)
            | Self::Adapters(_)
            | Self::LoadRoot { .. }
            | Self::PortFile { .. } => 78,
            Self::WarmUp(_) | Self::EngineDied | Self::System(_) => 1,
        }
    }
}

/// Serves until SIGTERM or ctrl-c, then drains: not ready, nothing new, what runs may finish, then the end. A second
/// signal fails what is left at once. `watched` are files of the caller's that are read anew like the server's own.
///
/// # Errors
/// When it can't start; a drain that runs out of time or is hurried is not an error.
pub async fn serve(config: ServeConfig, watched: Vec<Watched>) -> Result<(), AppError> {
    let began = Instant::now();
    // From now on, since unheard it would end the process.
    let hangups = signal::Hangups::new();
    let gate = Arc::new(gate(&config)?);
    let certificate = config.tls.clone().map(Certificate::read).transpose()?;
    let mut limits = config.connections;
    limits.max_connections =
        descriptors::room_for(limits.max_connections, if config.grpc.is_some() { 2 } else { 1 });
    let http = bind("--http", config.http).await?;
    let grpc = match config.grpc {
        Some(address) => Some(bind("--grpc", address).await?),
        None => None,
    };
    let admin = bind("--admin", config.admin).await?;
    let addresses = Addresses {
        http: http.local_addr()?,
        grpc: grpc.as_ref().map(TcpListener::local_addr).transpose()?,
        admin: admin.local_addr()?,
    };

    let (metrics, readiness) = (Arc::new(Metrics::default()), Readiness::default());
    admin::spawn(admin, Arc::clone(&metrics), readiness.clone(), config.stuck_after)?;
    metrics.lora_requests.set_most(config.engine.max_num_seqs);
    let resident = Resident::start(config.engine.clone(), Arc::clone(&metrics), readiness).await?;
    let resident = resident.logging_texts(config.log_texts);
    let tracing = Tracing::start(config.otlp.as_ref(), &metrics)?;
    let options = HttpOptions { traces: tracing.traces(), ..http_options(&config, &gate, addresses.http)? };
    let grpc = grpc.zip(addresses.grpc).map(|(listener, address)| {
        let options = GrpcOptions::beside(&options, hosts(&gate, address));
        (listener, grpc::public(Arc::clone(&resident.service), Arc::clone(&gate), options))
    });
    let router = http::public(Arc::clone(&resident.service), Arc::clone(&gate), options);
    let files = watched.into_iter().chain(own_files(&config, &gate, certificate.as_ref()));
    let watching = watch::watch(files.collect(), metrics, hangups, watch::PERIOD);
    // Before anybody hears that the server is there: who has heard it may end it.
    let shutdowns = signal::Shutdowns::new();
    let opening = Opening { config: &config, addresses, resident: &resident, began };
    let waits = opening.begin()?;

    let (phase, phases) = tokio::sync::watch::channel(Phase::Serving);
    let tls = certificate.as_ref().map(Certificate::acceptor);
    let serve_http = server::serve(http, tls.clone(), router, limits, phases.clone());
    let serve_grpc = async {
        if let Some((listener, router)) = grpc {
            server::serve(listener, tls, router, limits, phases).await;
        }
    };
    tokio::select! {
        Err(error) = opening.keep_up(waits) => return Err(error),
        ((), ()) = async { tokio::join!(serve_http, serve_grpc) } => {}
        // A client that reads nothing must not keep the process.
        () = grace(resident.ended()) => tracing::warn!("some clients did not take their answers in time"),
        () = drain(&resident, &phase, shutdowns, (config.drain_delay, config.drain_timeout)) => tracing::warn!("what was left has been dropped"),
        () = watching => {}
    }
    let ended = resident.ended().await;
    tracing.finish().await;
    if !ended {
        return Err(AppError::EngineDied);
    }
    tracing::info!("drained");
    Ok(())
}

/// Resolves some time after the engine has ended: what it said last may still be on its way.
async fn grace(ended: impl Future<Output = bool>) {
    ended.await;
    tokio::time::sleep(GRACE).await;
}

/// Closes the listener and begins the drain after the signal and a delay in which load balancers learn of it, since what
/// runs has its own connection; or when the engine has died, since without it there is nothing to serve. Resolves when a second signal has cut the drain short.
async fn drain(
    resident: &Resident,
    phase: &tokio::sync::watch::Sender<Phase>,
    mut shutdowns: signal::Shutdowns,
    (delay, timeout): (Duration, Duration),
) {
    let mut hurried = false;
    tokio::select! {
        () = shutdowns.next() => {
            if !delay.is_zero() {
                resident.readiness().set(State::Leaving);
                tracing::info!(delay_s = delay.as_secs(), "leaving: not ready any more, requests are still taken");
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = shutdowns.next() => hurried = true,
                    _ = resident.ended() => {}
                }
            }
            tracing::info!(timeout_s = timeout.as_secs(), "draining: nothing new is taken, what runs may finish");
        }
        _ = resident.ended() => {
            tracing::error!("the engine has ended by itself: stopping, so that a supervisor can start anew");
        }
    }
    resident.drain()(Instant::now() + timeout);
    phase.send_replace(Phase::Draining);
    if !hurried {
        shutdowns.next().await;
    }
    tracing::warn!("a second signal: what still runs fails now");
    resident.drain()(Instant::now());
    resident.ended().await;
    tokio::time::sleep(HURRY).await;
}

/// Who is let in. Priorities are for who owns the machine: on an open address nobody could stop the next one's.
fn gate(config: &ServeConfig) -> Result<Gate, KeyFileError> {
    match &config.api_keys {
        Some(file) => Gate::with_keys(file.clone()),
        None => {
            let own = config.grpc.iter().chain([&config.http]).all(|address| address.ip().is_loopback());
            Ok(Gate::open(if own { i32::MAX } else { 0 }))
        }
    }
}

/// The server's own files that may change while it runs.
fn own_files(config: &ServeConfig, gate: &Arc<Gate>, certificate: Option<&Arc<Certificate>>) -> Vec<Watched> {
    let keys = config.api_keys.iter().map(|file| {
        let gate = Arc::clone(gate);
        let reload = Box::new(move || gate.reload().map(drop).map_err(|error| error.to_string()));
        Watched { name: "api_keys", files: vec![file.clone()], reload }
    });
    let pair = config.tls.iter().zip(certificate).map(|(files, certificate)| {
        let certificate = Arc::clone(certificate);
        let reload = Box::new(move || certificate.reload().map_err(|error| error.to_string()));
        Watched { name: "tls", files: vec![files.cert.clone(), files.key.clone()], reload }
    });
    keys.chain(pair).collect()
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Bind { flag, address, source })
}

fn http_options(config: &ServeConfig, gate: &Gate, address: SocketAddr) -> Result<HttpOptions, AppError> {
    let mut options = HttpOptions::new(hosts(gate, address));
    options.origins = Origins::new(config.cors_origins.iter().cloned());
    options.max_body_bytes = config.max_body_bytes;
    options.max_adapter_bytes = config.max_adapter_bytes;
    options.metrics = config.metrics_on_http;
    options.stuck_after = config.stuck_after;
    if let Some(path) = &config.adapter_load_root {
        let root =
            LoadRoot::open(path).map_err(|source| AppError::LoadRoot { path: path.clone(), source })?;
        options.load_root = Some(Arc::new(root));
    }
    Ok(options)
}

/// The hosts that requests to `address` may name.
fn hosts(gate: &Gate, address: SocketAddr) -> Hosts {
    if gate.is_open() { Hosts::of(address) } else { Hosts::Keyed }
}

#[cfg(test)]
mod tests;
