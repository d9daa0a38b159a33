use axum::{
    Json as Answer,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    dto::{AdapterList, AdapterObject},
};
use crate::{api::ApiError, tenancy::Principal};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// Which page of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Most adapters on it.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Begin behind this name: `next` of the page before.
    after: Option<String>,
}

/// The adapters in the order of their names.
#[utoipa::path(
    get, path = "/v1/adapters", tag = "adapters", params(Page),
    responses((status = 200, description = "A page of them", body = AdapterList), super::openapi::QueryFailures)
)]
pub(super) async fn list(
    State(door): State<Door>,
    principal: Principal,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Answer<AdapterList>, ApiError> {
    let Query(page) = page.map_err(|error| ApiError::invalid("query", error.body_text()))?;
    let limit = page.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::invalid("limit", format!("limit is {limit}: use 1 to {MAX_PAGE}")));
    }
    let (list, more) = door.service.list_adapters(&principal, limit, page.after.as_deref());
    let next = list.last().filter(|_| more).map(|adapter| adapter.name().to_string());
    let adapters = list.iter().map(|adapter| AdapterObject::from(&**adapter)).collect();
    Ok(Answer(AdapterList { adapters, next }))
}

/// One adapter. The ETag is its version.
#[utoipa::path(
    get, path = "/v1/adapters/{name}", tag = "adapters",
    params(("name" = String, Path, description = "The adapter's name", example = "sst2")),
    responses((status = 200, description = "What it is", body = AdapterObject), super::openapi::AdapterFailures)
)]
pub(super) async fn show(
    State(door): State<Door>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|error| ApiError::invalid("name", error.body_text()))?;
    let adapter = door.service.get_adapter(&principal, name.parse()?)?;
    let mut response = Answer(AdapterObject::from(&*adapter)).into_response();
    let tag = HeaderValue::try_from(format!("\"{}\"", adapter.version()));
    response.headers_mut().insert(header::ETAG, tag.expect("a version is hexadecimal digits"));
    Ok(response)
}
