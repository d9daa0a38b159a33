//! The HTTP door: routes, JSON, server-sent events.

mod access;
mod account;
mod adapters;
mod classify;
pub mod dto;
mod generate;
mod guard;
mod health;
mod json;
mod openai;
mod openapi;
mod page;
mod request_id;
pub mod server;
mod stream;
mod tokens;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    error_handling::HandleErrorLayer,
    extract::{FromRef, OriginalUri, Request},
    http::Method,
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
    routing::{delete, get, post, put},
};
use tokio::sync::Semaphore;
use tower::{BoxError, ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer};
use tower_http::catch_panic::CatchPanicLayer;

use access::authorise;
pub use guard::{Hosts, Origins};
pub use openapi::openapi;

use super::{ApiError, ErrorCode, Readiness, Service};
use crate::{telemetry::Metrics, tenancy::Gate};

/// Uploads that are read at once; the next ones wait. With the largest upload it bounds the memory that uploads take.
const UPLOADS: usize = 4;

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
    /// How long a step may take before the server counts as stuck.
    pub stuck_after: Duration,
    /// Whether `/metrics` answers here too.
    pub metrics: bool,
    /// The hosts that requests may name.
    pub hosts: Hosts,
    /// The pages that may read the answers.
    pub origins: Origins,
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
            stuck_after: Duration::from_secs(120),
            metrics: false,
            hosts,
            origins: Origins::default(),
        }
    }
}

/// What every route has around it, with a model behind it or not. Cheap to clone.
#[derive(Clone)]
struct Frame {
    metrics: Arc<Metrics>,
    readiness: Readiness,
    stuck_after: Duration,
    hosts: Hosts,
    origins: Origins,
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
struct Door {
    service: Arc<Service>,
    gate: Arc<Gate>,
    options: Arc<HttpOptions>,
    /// Uploads that may be read at once.
    uploads: Arc<Semaphore>,
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
    };
    let pages = options.origins.layer();
    let uploads = Arc::new(Semaphore::new(UPLOADS));
    let started = SystemTime::now();
    let door = Door { service, gate, options: Arc::new(options), uploads, started, frame: frame.clone() };
    let busy = move |_: BoxError| async move {
        let message = format!("{most} requests are in work, the most this server takes: retry later");
        ApiError::new(ErrorCode::Overloaded, message)
    };
    let limits = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(busy))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(most));
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
        .route("/openapi.json", get(openapi::serve))
        .layer(limits);
    let routes = api.merge(health::routes(metrics)).merge(page::routes());
    let routes = routes.route_layer(from_fn_with_state(door.clone(), authorise));
    let routes = dressed(routes, frame).with_state(door);
    // Outermost, so that pages can read failures too.
    match pages {
        Some(pages) => routes.layer(pages),
        None => routes,
    }
}

/// The routes of the admin address: health and metrics, which answer before the model is there.
pub fn admin(metrics: Arc<Metrics>, readiness: Readiness, stuck_after: Duration, hosts: Hosts) -> Router {
    let frame = Frame { metrics, readiness, stuck_after, hosts, origins: Origins::default() };
    dressed(health::routes::<Frame>(true), frame.clone()).with_state(frame)
}

/// `routes` with what every answer has: an id, its account, the one shape of errors, a check of the host.
fn dressed<S: Clone + Send + Sync + 'static>(routes: Router<S>, frame: Frame) -> Router<S> {
    routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(frame.clone(), guard::check))
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(from_fn_with_state(frame, account::account))
        .layer(from_fn(request_id::identify))
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
mod tests;
