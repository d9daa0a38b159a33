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
use crate::api::{ApiError, ErrorCode};

/// The answer of the health paths.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
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
/// For a readiness probe: 503 while the model loads and while the server drains.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "health_ready", tag = "health",
    responses((status = 200, description = "They are", body = Health), super::openapi::NotReady)
)]
pub(super) async fn ready(State(frame): State<Frame>) -> Result<Json<Health>, ApiError> {
    frame.readiness.invite()?;
    Ok(Json(Health { status: "ok" }))
}

/// The metrics as Prometheus text. On the admin address; here only with `--metrics-on-http`.
async fn exposition(State(frame): State<Frame>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, frame.metrics.render())
}
