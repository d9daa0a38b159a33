//! Counts every request with its outcome, however it ends: answered, failed, streamed to the end or abandoned.

use std::{
    mem,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use tokio::runtime::Handle;

use super::{Frame, request_id::RequestId};
use crate::{
    api::{
        ApiError,
        trace::{End, Trace},
    },
    domain::TenantId,
    telemetry::Metrics,
};

const CANCELLED: &str = "cancelled";

/// The routes whose whole time is measured.
const MEASURED: [&str; 5] = [
    "/v1/generate",
    "/v1/completions",
    "/v1/chat/completions",
    "/dept.v1.InferenceService/Generate",
    "/dept.v1.InferenceService/GenerateStream",
];

/// How the routes begin that do a client's work; the others are probed or scraped every few seconds for ever.
const WORK: [&str; 2] = ["/v1/", "/dept.v1."];

/// Whether a route does a client's work.
pub(super) fn is_work(endpoint: &str) -> bool {
    WORK.iter().any(|start| endpoint.starts_with(start))
}

/// The open account of one request; closes when its last holder lets go.
pub(in crate::api) struct Account {
    metrics: Arc<Metrics>,
    id: String,
    endpoint: String,
    started: Instant,
    outcome: Mutex<&'static str>,
    /// Whose it is; open routes are nobody's.
    tenant: OnceLock<TenantId>,
    /// Where the server traces.
    trace: Option<Arc<Trace>>,
}

impl Account {
    /// Says who asks.
    pub fn charge(&self, tenant: &TenantId) {
        // A request has one tenant: the first word counts.
        let _ = self.tenant.set(tenant.clone());
    }

    /// The request's trace, where it is recorded.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_deref().filter(|trace| trace.is_recorded())
    }

    /// Says how the request ends; without a word it was abandoned by its client.
    pub fn settle(&self, outcome: &'static str) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let outcome = *self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let time = self.started.elapsed();
        self.metrics.requests.count(&self.endpoint, outcome);
        if let Some(tenant) = self.tenant.get() {
            self.metrics.tenant_requests.count(tenant, outcome);
        }
        if MEASURED.contains(&self.endpoint.as_str()) {
            self.metrics.request_duration.observe(time);
        }
        if let Some(trace) = self.trace() {
            let tenant = self.tenant.get().map(TenantId::as_str);
            trace.end(&End { endpoint: &self.endpoint, id: &self.id, tenant, outcome });
        }
        let told = Told {
            id: mem::take(&mut self.id),
            endpoint: mem::take(&mut self.endpoint),
            tenant: self.tenant.take(),
            trace: self.trace.take(),
            outcome,
            time,
        };
        // The connection's task, which runs now, has the answer's last bytes yet to write: they go before the log's line.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { drop(told) })),
            Err(_) => drop(told),
        }
    }
}

/// What a closed account tells the log when it is dropped: so a runtime that ends before the task that carries it has run
/// loses no line.
struct Told {
    id: String,
    endpoint: String,
    tenant: Option<TenantId>,
    trace: Option<Arc<Trace>>,
    outcome: &'static str,
    time: Duration,
}

impl Drop for Told {
    fn drop(&mut self) {
        // A stream ends after its handler, outside the request's span.
        let Self { id, endpoint, outcome, trace, .. } = self;
        let ms = self.time.as_micros() as f64 / 1e3;
        let tenant = self.tenant.as_ref().map(TenantId::as_str);
        let trace_id = trace.as_ref().map(|trace| tracing::field::display(trace.id()));
        if is_work(endpoint) || *outcome != "ok" {
            tracing::info!(parent: None, id, trace_id, endpoint, tenant, outcome, ms, "request ended");
        } else {
            tracing::debug!(parent: None, id, endpoint, outcome, ms, "request ended");
        }
    }
}

/// Marks a response whose account is settled elsewhere: by its body, as it ends.
#[derive(Clone, Copy)]
pub(in crate::api) struct Streams;

/// Opens an account for the request and, unless its body is a stream, closes it with the response.
pub(super) async fn account(State(frame): State<Frame>, mut request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let endpoint = matched.map_or("other".into(), |path| path.as_str().to_owned());
    let account = Arc::new(Account {
        metrics: Arc::clone(&frame.metrics),
        id: request.extensions().get::<RequestId>().map_or_else(String::new, |id| id.0.clone()),
        endpoint,
        started: Instant::now(),
        outcome: Mutex::new(CANCELLED),
        tenant: OnceLock::new(),
        trace: request.extensions_mut().remove::<Arc<Trace>>(),
    });
    request.extensions_mut().insert(Arc::clone(&account));
    let response = next.run(request).await;
    let failure = response.extensions().get::<ApiError>();
    if let Some(trace) = account.trace() {
        trace.responds(failure.map_or(response.status().as_u16(), |error| error.code.row().status));
    }
    match failure {
        Some(error) => account.settle(error.code.as_str()),
        None if response.extensions().get::<Streams>().is_none() => account.settle("ok"),
        None => {}
    }
    response
}
