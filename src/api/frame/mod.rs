//! What every front door has around its routes, whatever it speaks: an id and an account for each request, a check of the
//! host, who may do what, and how many requests are in work.
//!
//! A failure on its way out is an [`ApiError`] in the response's extensions, until [`request_id`] has the door's wire
//! write it.

pub(super) mod access;
pub(super) mod account;
mod guard;
pub(super) mod request_id;
pub(super) mod turns;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    error_handling::HandleErrorLayer,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
use tower::{BoxError, ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Span;

pub(in crate::api) use guard::DEPT_IGNORED;
pub use guard::{Hosts, Origins};

use super::{ApiError, ErrorCode, Readiness};
use crate::telemetry::{Metrics, traces::Traces};

/// How a door writes a failure of the request with this id.
pub(super) type Written = fn(&ApiError, &str) -> Response;

/// What every route has around it, with a model behind it or not. Cheap to clone.
#[derive(Clone)]
pub(super) struct Frame {
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    pub stuck_after: Duration,
    pub hosts: Hosts,
    pub origins: Origins,
    pub written: Written,
    /// Where spans go; nothing is traced without.
    pub traces: Option<Traces>,
}

/// `routes` with what every answer has: an id, its account, the one shape of errors, a check of the host.
pub(super) fn dressed<S: Clone + Send + Sync + 'static>(routes: Router<S>, frame: Frame) -> Router<S> {
    routes
        .layer(from_fn_with_state(frame.clone(), guard::check))
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(from_fn_with_state(frame.clone(), account::account))
        .layer(from_fn_with_state(frame, request_id::identify))
}

/// `routes` with at most so many requests in work at once; one more is refused at once.
pub(super) fn limited<S: Clone + Send + Sync + 'static>(routes: Router<S>, most: usize) -> Router<S> {
    let busy = move |_: BoxError| async move {
        let message = format!("{most} requests are in work, the most this server takes: retry later");
        ApiError::new(ErrorCode::Overloaded, message)
    };
    let limits = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(busy))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(most));
    routes.layer(limits)
}

/// Runs work at once where it is `light`, a matter of microseconds, and else off the thread that serves connections: that costs two
/// hops between threads, which wait for the system to wake each.
pub(super) async fn aside_unless<T: Send + 'static>(
    light: bool,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if light { work() } else { off_the_loop(work).await }
}

/// Runs work that may take milliseconds (a long prompt's tokens) off the thread that serves connections.
pub(super) async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    // What the work logs belongs to the request all the same.
    let span = Span::current();
    // The task fails only by a panic, which has been reported by then.
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .unwrap_or_else(|_| Err(ApiError::internal()))
}
