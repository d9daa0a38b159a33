//! A failure as HTTP tells it: status, headers and the one JSON shape.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::dto::ErrorBody;
use crate::api::{ApiError, ErrorCode};

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The error in its final form.
pub(super) fn written(error: &ApiError, id: &str) -> Response {
    let row = error.code.row();
    let status =
        StatusCode::from_u16(row.status).expect("the table's statuses are legal, which a test holds");
    let mut response = (status, Json(ErrorBody::new(error, id))).into_response();
    if let Some(seconds) = error.retry_after.or(row.retry_after) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if error.code == ErrorCode::Unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(should) = row.should_retry {
        let value = HeaderValue::from_static(if should { "true" } else { "false" });
        response.headers_mut().insert(SHOULD_RETRY, value);
    }
    response
}
