use std::time::Instant;

use axum::{
    Json, Router,
    extract::{FromRef, State},
    http::header,
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::Frame;
use crate::{
    api::{ApiError, ErrorCode},
    domain::UtcTime,
    telemetry::{Metrics, Standing},
};

/// The answer of `/health/live`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// The answer of `/health/ready`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    /// `ok`, or `degraded` where requests are served and something else is not as it should be.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// What is not as it should be; absent where everything is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(nullable = false, required = false)]
    pub degraded: Vec<Degraded>,
}

/// Something that does not work, while what does not need it is served on. The log has more.
#[derive(Debug, Serialize, ToSchema)]
pub struct Degraded {
    /// `adapter_store`: adapters in memory are served, others can't be loaded or changed. `pinned_adapters`: some are not
    /// held in memory; the log has their names, the metrics their number.
    #[schema(example = "adapter_store")]
    pub part: &'static str,
    /// What it can't do: `list`, `read` or `write`; `load` for pinned adapters.
    #[schema(example = "write")]
    pub operation: &'static str,
    /// Why: `unreachable`, `denied` or `full`; for pinned adapters `error`, where they can't be loaded, or `capacity`, where more
    /// is pinned than half of `--adapter-host-bytes` or adapters in use fill it.
    #[schema(example = "full")]
    pub reason: &'static str,
    /// Since when.
    #[schema(example = "2026-11-23T15:00:00Z")]
    pub since: String,
}

impl From<Standing> for Degraded {
    fn from(standing: Standing) -> Self {
        let Standing { work, fault, since } = standing;
        let since = UtcTime::from(since).to_string();
        Self { part: "adapter_store", operation: work.as_str(), reason: fault.as_str(), since }
    }
}

impl Degraded {
    /// All that is not as it should be.
    fn all(metrics: &Metrics) -> Vec<Self> {
        let pins = metrics.missing_pins.standing().into_iter().map(|(fault, since)| Self {
            part: "pinned_adapters",
            operation: "load",
            reason: fault.as_str(),
            since: UtcTime::from(since).to_string(),
        });
        metrics.store_faults.standing().into_iter().map(Self::from).chain(pins).collect()
    }
}

/// Health, and metrics where they are wanted.
pub(super) fn routes<S>(metrics: bool) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Frame: FromRef<S>,
{
    let routes = Router::new().route("/health/live", get(live)).route("/health/ready", get(ready));
    if metrics { routes.route("/metrics", get(exposition)) } else { routes }
}

/// Whether the process is worth keeping.
///
/// For a liveness probe: it answers while the model loads and while the server drains, and is 503 once a step of the engine has been
/// running for longer than `--stuck-after`.
#[utoipa::path(
    get, path = "/health/live", operation_id = "health_live", tag = "health",
    responses((status = 200, description = "It is", body = Health), super::openapi::EngineStuck)
)]
pub(super) async fn live(State(frame): State<Frame>) -> Result<Json<Health>, ApiError> {
    let age = frame.metrics.step_age.at(Instant::now());
    if age > frame.stuck_after {
        let (age, limit) = (age.as_secs(), frame.stuck_after.as_secs());
        let message = format!(
            "the engine has been at one step for {age} s, and --stuck-after is {limit} s: restart the server"
        );
        return Err(ApiError::new(ErrorCode::EngineStuck, message));
    }
    Ok(Json(Health { status: "ok" }))
}

/// Whether requests are served.
///
/// For a readiness probe: 503 while the model and the pinned adapters load and once the server is to end. It stays 200 while the
/// adapter store fails or a pinned adapter can't be loaded, and says so; with `--wait-for-pinned` it is 503 until every pinned
/// adapter has been loaded.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "health_ready", tag = "health",
    responses((status = 200, description = "They are", body = Ready), super::openapi::NotReady)
)]
pub(super) async fn ready(State(frame): State<Frame>) -> Result<Json<Ready>, ApiError> {
    frame.readiness.invite()?;
    let degraded = Degraded::all(&frame.metrics);
    Ok(Json(Ready { status: if degraded.is_empty() { "ok" } else { "degraded" }, degraded }))
}

/// The metrics as Prometheus text. On the admin address; here only with `--metrics-on-http`.
async fn exposition(State(frame): State<Frame>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, frame.metrics.render())
}
