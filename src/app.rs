//! Builds the parts, connects them, and drains them: the life of `dept serve`.

mod admin;
mod load;
mod signal;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, thread::JoinHandle, time::Instant};

use futures::StreamExt;
use tokio::net::TcpListener;

pub use load::{LoadModelError, LoadSettings, LoadedModel, load_model};

use crate::{
    adapter::{BackboneShape, Registry, Task},
    api::{
        Readiness, Service, State,
        http::{self, Hosts, HttpOptions},
    },
    config::ServeConfig,
    domain::{ModelKind, SamplingParams, TenantId, TokenEvent},
    engine::{EngineHandle, Submission},
    telemetry::Metrics,
};

/// Why the server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address can't be listened on.
    #[error("can't listen on {address} for {flag}: {source}. Is another server running there? Choose a free port, or port 0")]
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
    /// A thread, a listener or a signal handler failed.
    #[error("the system refused a resource: {0}")]
    System(#[from] std::io::Error),
}

impl AppError {
    /// The process's exit code: 78 where another configuration would help, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. } | Self::Model(_) | Self::Adapters { .. } | Self::PortFile { .. } => 78,
            Self::WarmUp(_) | Self::System(_) => 1,
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

    let settings = LoadSettings::from(&config);
    let model = tokio::task::spawn_blocking(move || load_model(&settings)).await.map_err(std::io::Error::other)??;
    let metrics = Arc::new(Metrics::default());
    let registry = Arc::new(scan_adapters(&config, &model, &metrics)?);
    let tokenizer = model.tokenizer.clone();
    let (handle, engine) = model.start(&config, Arc::clone(&metrics))?;
    warm_up(&handle).await?;

    let readiness = Readiness::default();
    let service = Arc::new(Service {
        engines: vec![handle.clone()],
        registry,
        tokenizer,
        metrics,
        readiness: readiness.clone(),
        max_sequences: config.queue_requests,
    });
    admin::spawn(admin, Arc::clone(&service))?;
    let router = http::public(service, http_options(&config, addresses.http));
    readiness.set(State::Ready);
    addresses.write(config.port_file.as_deref())?;
    announce(&config, addresses, &handle, began);

    let drain = drain_on_signal(readiness, handle, config.drain_timeout);
    axum::serve(http, router).with_graceful_shutdown(drain).await?;
    join(engine).await;
    tracing::info!("drained, goodbye");
    Ok(())
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

/// The adapters of the configured root. Unsound folders are logged and left out.
fn scan_adapters(config: &ServeConfig, model: &LoadedModel, metrics: &Metrics) -> Result<Registry, AppError> {
    let profile = &model.profile;
    let shape = BackboneShape {
        hidden: profile.hidden,
        task: match profile.kind {
            ModelKind::Seq2Seq => Task::Seq2SeqLm,
            ModelKind::Causal => Task::CausalLm,
        },
        name: profile.name.clone(),
        fingerprint: Some(profile.fingerprint.clone()),
    };
    let Some(root) = &config.adapters else { return Ok(Registry::new(shape)) };
    let (registry, failures) =
        Registry::scan(root, shape).map_err(|source| AppError::Adapters { path: root.clone(), source })?;
    for failure in &failures {
        tracing::warn!(folder = %failure.path.display(), error = %failure.error, "an adapter is left out");
    }
    metrics.adapter_loads.ok.inc_by(registry.len() as u64);
    metrics.adapter_loads.error.inc_by(failures.len() as u64);
    metrics.adapters.host.set(registry.len() as i64);
    metrics.adapters.store.set(registry.len() as i64);
    Ok(registry)
}

/// Runs one short sequence, so that the first request finds memory touched and the model known to work.
async fn warm_up(engine: &EngineHandle) -> Result<(), AppError> {
    let submission = Submission {
        tenant: TenantId::default_tenant(),
        adapter: None,
        tokens: vec![0],
        sampling: SamplingParams::greedy(),
        max_tokens: 1,
        min_tokens: 0,
        stop: Vec::new(),
        priority: 0,
        deadline: None,
    };
    let mut events = engine.submit(submission).map_err(|error| AppError::WarmUp(error.to_string()))?;
    while let Some(event) = events.next().await {
        match event {
            TokenEvent::Token(_) => {}
            TokenEvent::Finished(_) => return Ok(()),
            TokenEvent::Failed(error) => return Err(AppError::WarmUp(error.to_string())),
        }
    }
    Err(AppError::WarmUp("its thread has ended; the log says why".to_owned()))
}

/// Where the server really listens.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Addresses {
    http: SocketAddr,
    admin: SocketAddr,
}

impl Addresses {
    /// Writes them as JSON, whole or not at all: who waits for the file must not read half of it.
    fn write(&self, file: Option<&std::path::Path>) -> Result<(), AppError> {
        let Some(path) = file else { return Ok(()) };
        let failed = |source| AppError::PortFile { path: path.to_owned(), source };
        let json = serde_json::to_string(self).map_err(|error| failed(error.into()))?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        std::fs::write(&temporary, json + "\n").map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(failed)
    }
}

fn announce(config: &ServeConfig, addresses: Addresses, engine: &EngineHandle, began: Instant) {
    let model = engine.model();
    let took_ms = began.elapsed().as_millis() as u64;
    tracing::info!(
        model = model.name,
        hidden = model.hidden,
        vocabulary = model.vocab_size,
        threads = config.threads,
        took_ms,
        "the model is resident"
    );
    tracing::info!(http = %addresses.http, admin = %addresses.admin, "ready: POST http://{}/v1/generate", addresses.http);
}

/// Resolves when the listener is to close, which is at once after the signal: what runs has its own connection.
async fn drain_on_signal(readiness: Readiness, engine: EngineHandle, timeout: std::time::Duration) {
    signal::shutdown().await;
    tracing::info!(timeout_s = timeout.as_secs(), "draining: nothing new is taken, what runs may finish");
    readiness.set(State::Draining);
    engine.drain(Instant::now() + timeout);
}

async fn join(engine: JoinHandle<()>) {
    let joined = tokio::task::spawn_blocking(move || engine.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        tracing::error!("the engine's thread ended with a panic");
    }
}
