//! Builds the parts, connects them, and drains them: the life of `dept serve`.

mod admin;
mod backbone;
mod load;
mod resident;
mod signal;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::serve::ListenerExt;
use tokio::net::{TcpListener, TcpStream};

pub use load::{LoadModelError, LoadedModel, load_model};
pub use resident::Resident;

use crate::{
    api::{
        Readiness, State,
        http::{self, Hosts, HttpOptions},
    },
    config::ServeConfig,
    telemetry::Metrics,
};

/// How long clients may take to read what is left for them, once the engine has ended.
const GRACE: Duration = Duration::from_secs(5);

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
    /// The adapters' root can't be listed.
    #[error("can't list the adapters in '{}': {source}", path.display())]
    Adapters {
        /// The root.
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
            Self::Bind { .. } | Self::Model(_) | Self::Adapters { .. } | Self::PortFile { .. } => 78,
            Self::WarmUp(_) | Self::EngineDied | Self::System(_) => 1,
        }
    }
}

/// Serves until SIGTERM or ctrl-c, then drains: not ready, nothing new, what runs may finish, then the end.
///
/// # Errors
/// When it can't start; a drain that runs out of time is not an error.
pub async fn serve(config: ServeConfig) -> Result<(), AppError> {
    let began = Instant::now();
    let http = bind("--http", config.http).await?;
    let admin = bind("--admin", config.admin).await?;
    let addresses = Addresses { http: http.local_addr()?, admin: admin.local_addr()? };

    let (metrics, readiness) = (Arc::new(Metrics::default()), Readiness::default());
    admin::spawn(admin, Arc::clone(&metrics), readiness.clone())?;
    let resident = Resident::start(config.engine.clone(), metrics, readiness).await?;
    let router = http::public(resident.service.clone(), http_options(&config, addresses.http));
    resident.readiness().set(State::Ready);
    addresses.write(config.port_file.as_deref())?;
    announce(&config, addresses, &resident, began);

    let drain = drain_on_signal(resident.drain(), resident.ended(), config.drain_timeout);
    let served = axum::serve(http.tap_io(send_at_once), router).with_graceful_shutdown(drain);
    tokio::select! {
        served = served.into_future() => served?,
        // A client that reads nothing must not keep the process.
        () = grace(resident.ended()) => tracing::warn!("some clients did not take their answers in time"),
    }
    if !resident.ended().await {
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

/// A token is a small packet: it must not wait until the client has acknowledged the one before (some 40 ms).
fn send_at_once(connection: &mut TcpStream) {
    if let Err(error) = connection.set_nodelay(true) {
        tracing::debug!(%error, "a connection refuses TCP_NODELAY");
    }
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Bind { flag, address, source })
}

fn http_options(config: &ServeConfig, address: SocketAddr) -> HttpOptions {
    let mut options = HttpOptions::new(Hosts::of(address));
    options.max_body_bytes = config.max_body_bytes;
    options.metrics = config.metrics_on_http;
    options
}

/// Resolves when the listener is to close: at once after the signal, since what runs has its own connection, or when the
/// engine has died, since without it there is nothing to serve.
async fn drain_on_signal(drain: impl FnOnce(Instant), ended: impl Future<Output = bool>, timeout: Duration) {
    tokio::select! {
        () = signal::shutdown() => {
            tracing::info!(timeout_s = timeout.as_secs(), "draining: nothing new is taken, what runs may finish");
        }
        _ = ended => tracing::error!("the engine has ended by itself: stopping, so that a supervisor can start anew"),
    }
    drain(Instant::now() + timeout);
}

/// Where the server really listens.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Addresses {
    http: SocketAddr,
    admin: SocketAddr,
}

impl Addresses {
    /// Writes them as JSON, whole or not at all: who waits for the file must not read half of it.
    fn write(&self, file: Option<&Path>) -> Result<(), AppError> {
        let Some(path) = file else { return Ok(()) };
        let failed = |source| AppError::PortFile { path: path.to_owned(), source };
        let json = serde_json::to_string(self).map_err(|error| failed(error.into()))?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        std::fs::write(&temporary, json + "\n").map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(failed)
    }
}

fn announce(config: &ServeConfig, addresses: Addresses, resident: &Resident, began: Instant) {
    tracing::info!(
        model = resident.model().name,
        adapters = resident.service.registry.len(),
        threads = config.engine.threads,
        admin = %addresses.admin,
        took_ms = began.elapsed().as_millis() as u64,
        "ready: POST http://{}/v1/generate",
        addresses.http
    );
}
