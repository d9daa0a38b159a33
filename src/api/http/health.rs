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
use crate::api::ApiError;

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

/// Whether the process answers at all.
///
/// For a liveness probe: it answers while the model loads and while the server drains.
#[utoipa::path(
    get, path = "/health/live", tag = "health",
    responses((status = 200, description = "It does", body = Health))
)]
pub(super) async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether requests are served.
///
/// For a readiness probe: 503 while the model loads and while the server drains.
#[utoipa::path(
    get, path = "/health/ready", tag = "health",
    responses((status = 200, description = "They are", body = Health), super::openapi::NotReady)
)]
pub(super) async fn ready(State(frame): State<Frame>) -> Result<Json<Health>, ApiError> {
    frame.readiness.check()?;
    Ok(Json(Health { status: "ok" }))
}

/// The metrics as Prometheus text. On the admin address; here only with `--metrics-on-http`.
async fn exposition(State(frame): State<Frame>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, frame.metrics.render())
}
