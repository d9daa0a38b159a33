use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use serde::Serialize;
use utoipa::ToSchema;

use super::Door;
use crate::api::ApiError;

/// The answer of the health paths.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// Health, and metrics where they are wanted.
pub(super) fn routes(metrics: bool) -> Router<Door> {
    let routes = Router::new().route("/health/live", get(live)).route("/health/ready", get(ready));
    if metrics { routes.route("/metrics", get(exposition)) } else { routes }
}

/// Whether the process answers at all.
#[utoipa::path(
    get, path = "/health/live", tag = "health",
    responses((status = 200, description = "It does", body = Health))
)]
pub(super) async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether requests are served: 503 while the model loads and while the server drains.
#[utoipa::path(
    get, path = "/health/ready", tag = "health",
    responses((status = 200, description = "They are", body = Health), super::openapi::NotReady)
)]
pub(super) async fn ready(State(door): State<Door>) -> Result<Json<Health>, ApiError> {
    door.service.readiness.check()?;
    Ok(Json(Health { status: "ok" }))
}

/// The metrics as Prometheus text. On the admin address; here only with `--metrics-on-http`.
async fn exposition(State(door): State<Door>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, door.service.metrics.render())
}
