//! The HTTP door: routes, JSON, server-sent events.

mod access;
mod adapters;
mod classify;
pub mod dto;
mod failure;
mod generate;
mod health;
mod json;
mod openai;
mod openapi;
mod page;
pub mod server;
mod stream;
mod tokens;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::{FromRef, OriginalUri, Request},
    http::Method,
    middleware::from_fn_with_state,
    routing::{delete, get, post, put},
};

pub use super::frame::{Hosts, Origins};
pub use openapi::openapi;

use super::{
    ApiError, ErrorCode, Readiness, Service,
    frame::{
        self, Frame,
        access::{Doorkeeper, authorise},
        account, aside_unless, limited, off_the_loop, request_id,
        turns::Turns,
    },
};
use crate::{
    adapter::LoadRoot,
    telemetry::{Metrics, traces::Traces},
    tenancy::Gate,
};
use adapters::by_path;

/// Uploads that are read and stored at once; the next ones wait. With the largest upload it bounds the memory that they take.
const UPLOADS: usize = 4;

/// The same of downloads.
const DOWNLOADS: usize = 8;

/// What the HTTP door is told.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Largest upload of an adapter, in bytes.
    pub max_adapter_bytes: usize,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// Time between two comments that keep an idle stream open.
    pub ping_interval: Duration,
    /// Most API requests in work at once; a stream counts until its head is sent. Health is not counted.
    pub max_requests: usize,
    /// Where adapters may be loaded from by their path; nowhere where there is none.
    pub load_root: Option<Arc<LoadRoot>>,
    /// How long a step may take before the server counts as stuck.
    pub stuck_after: Duration,
    /// Whether `/metrics` answers here too.
    pub metrics: bool,
    /// The hosts that requests may name.
    pub hosts: Hosts,
    /// The pages that may read the answers.
    pub origins: Origins,
    /// Whose uploads are in memory, of all doors together.
    pub uploads: Arc<Turns>,
    /// Where spans go; nothing is traced without.
    pub traces: Option<Traces>,
}

impl HttpOptions {
    /// The defaults for a server that answers to `hosts`.
    pub fn new(hosts: Hosts) -> Self {
        Self {
            max_body_bytes: 1 << 20,
            max_adapter_bytes: 64 << 20,
            body_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(15),
            max_requests: 1024,
            load_root: None,
            stuck_after: Duration::from_secs(120),
            metrics: false,
            hosts,
            origins: Origins::default(),
            uploads: Arc::new(Turns::new(UPLOADS)),
            traces: None,
        }
    }
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
struct Door {
    service: Arc<Service>,
    options: Arc<HttpOptions>,
    /// Whose downloads are in memory.
    downloads: Arc<Turns>,
    /// Since when it is open.
    started: SystemTime,
    frame: Frame,
}

impl FromRef<Door> for Frame {
    fn from_ref(door: &Door) -> Self {
        door.frame.clone()
    }
}

/// The public routes: the API for whom `gate` lets in, and health without a limit on its callers.
pub fn public(service: Arc<Service>, gate: Arc<Gate>, options: HttpOptions) -> Router {
    let (metrics, most) = (options.metrics, options.max_requests);
    let frame = Frame {
        metrics: Arc::clone(&service.metrics),
        readiness: service.readiness.clone(),
        stuck_after: options.stuck_after,
        hosts: options.hosts,
        origins: options.origins.clone(),
        written: failure::written,
        traces: options.traces.clone(),
    };
    let pages = options.origins.layer();
    let (started, downloads) = (SystemTime::now(), Arc::new(Turns::new(DOWNLOADS)));
    let door = Door { service, options: Arc::new(options), downloads, started, frame: frame.clone() };
    let keeper = Doorkeeper { gate, declared: access::declared };
    let api = Router::new()
        .route("/v1/generate", post(generate::generate))
        .route("/v1/classify", post(classify::classify))
        .route("/v1/tokenize", post(tokens::tokenize))
        .route("/v1/detokenize", post(tokens::detokenize))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/chat/completions", post(openai::chat_completions))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{model}", get(openai::models::show))
        .route("/v1/adapters", get(adapters::list))
        .route(
            "/v1/adapters/{name}",
            get(adapters::show).put(adapters::put).patch(adapters::patch).delete(adapters::delete),
        )
        .route("/v1/adapters/{name}/versions", get(adapters::versions))
        .route("/v1/adapters/{name}/versions/{version}", delete(adapters::delete_version))
        .route("/v1/adapters/{name}/content", get(adapters::content))
        .route("/v1/aliases/{alias}", put(adapters::set_alias).delete(adapters::delete_alias))
        .route("/v1/load_lora_adapter", post(by_path::load))
        .route("/v1/unload_lora_adapter", post(by_path::unload))
        .route("/openapi.json", get(openapi::serve));
    let routes = limited(api, most).merge(health::routes(metrics)).merge(page::routes());
    let routes = routes.route_layer(from_fn_with_state(keeper, authorise));
    let routes = dressed(routes, frame).with_state(door);
    // Outermost, so that pages can read failures too.
    match pages {
        Some(pages) => routes.layer(pages),
        None => routes,
    }
}

/// The routes of the admin address: health and metrics, which answer before the model is there.
pub fn admin(metrics: Arc<Metrics>, readiness: Readiness, stuck_after: Duration, hosts: Hosts) -> Router {
    let (origins, written) = (Origins::default(), failure::written);
    let frame = Frame { metrics, readiness, stuck_after, hosts, origins, written, traces: None };
    dressed(health::routes::<Frame>(true), frame.clone()).with_state(frame)
}

/// `routes` with what every answer has.
fn dressed<S: Clone + Send + Sync + 'static>(routes: Router<S>, frame: Frame) -> Router<S> {
    frame::dressed(routes.fallback(no_such_path).method_not_allowed_fallback(no_such_method), frame)
}

async fn no_such_path(OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::new(
        ErrorCode::NotFound,
        format!("there is no {}: GET /openapi.json lists the paths", uri.path()),
    )
}

async fn no_such_method(method: Method, request: Request) -> ApiError {
    let path = request.uri().path();
    let message = format!("{path} does not take {method}: GET /openapi.json lists the methods");
    ApiError::new(ErrorCode::MethodNotAllowed, message)
}

#[cfg(test)]
pub(in crate::api) mod tests;
