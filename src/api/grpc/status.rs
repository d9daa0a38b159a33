//! An [`ApiError`] as gRPC tells it: a status with details.
//!
//! Handlers return a status that only carries the error; on its way out it becomes the error again, which the frame counts
//! and has written with the request's id. What tonic itself refuses (a message over the limit, one that is no message)
//! becomes an error of the one table in the same place.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::api::{
    ApiError, ErrorCode,
    frame::account::{Account, Streams},
};

/// Who the reasons of [`tonic_types::ErrorInfo`] are of.
const DOMAIN: &str = "dept.v1";

/// Longest message, in bytes: it quotes what a client sent, travels thrice, once in up to three bytes for each of them, and
/// many clients take no more than 8 KiB of headers.
const MAX_MESSAGE: usize = 600;

/// Longest name of a field, in bytes.
const MAX_PARAM: usize = 100;

/// A status that takes `error` to where it is written.
pub(super) fn carrying(error: ApiError) -> Status {
    let mut status = Status::new(error.code.row().grpc, error.message.clone());
    status.set_source(Arc::new(error));
    status
}

/// Hands failures of our services to the frame.
pub(super) async fn told(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Status>() {
        Some(status) => error_of(&status).into_response(),
        None => response,
    }
}

/// Counts failures of services whose words are not ours (health, reflection) and leaves them as they are.
pub(super) async fn noted(request: Request, next: Next) -> Response {
    let account = request.extensions().get::<Arc<Account>>().cloned();
    let mut response = next.run(request).await;
    if let (Some(status), Some(account)) = (response.extensions().get::<Status>(), account) {
        account.settle(error_of(status).code.as_str());
        response.extensions_mut().insert(Streams);
    }
    response
}

/// What `status` says, in our words.
pub(super) fn error_of(status: &Status) -> ApiError {
    if let Some(error) = status.source().and_then(|source| source.downcast_ref::<ApiError>()) {
        return error.clone();
    }
    let (code, advice) = match status.code() {
        Code::OutOfRange => {
            (ErrorCode::TooLarge, "send less, or raise --max-body-bytes (--max-adapter-bytes)")
        }
        Code::Unimplemented => (ErrorCode::UnsupportedMediaType, "send messages without compression"),
        // tonic's word for a message that can't be read.
        Code::Internal => (ErrorCode::InvalidRequest, "send the messages of proto/dept/v1"),
        Code::NotFound => return ApiError::new(ErrorCode::NotFound, status.message()),
        Code::InvalidArgument => return ApiError::new(ErrorCode::InvalidRequest, status.message()),
        _ => {
            tracing::error!(%status, "tonic");
            return ApiError::internal();
        }
    };
    ApiError::new(code, format!("{}: {advice}", status.message().trim_end_matches(['.', ' '])))
}

/// The status of `error` in the answer to the request `id`.
pub(super) fn of(error: &ApiError, id: &str) -> Status {
    let row = error.code.row();
    let message = clipped(&error.message, MAX_MESSAGE);
    let mut details = ErrorDetails::new();
    details.set_error_info(row.name.to_uppercase(), DOMAIN, []);
    details.set_request_info(id, "");
    if let (Code::InvalidArgument, Some(param)) = (row.grpc, &error.param) {
        details.add_bad_request_violation(clipped(param, MAX_PARAM), &message);
    }
    let wait = error.retry_after.or(row.retry_after).map(|seconds| Duration::from_secs(seconds.into()));
    if wait.is_some() {
        details.set_retry_info(wait);
    }
    let mut status = Status::with_error_details(row.grpc, &message, details);
    if let Some(ms) = wait.and_then(|wait| wait.as_millis().to_string().parse().ok()) {
        // What gRPC libraries that retry by themselves heed.
        status.metadata_mut().insert("grpc-retry-pushback-ms", ms);
    }
    status
}

/// `error` as a whole answer.
pub(super) fn written(error: &ApiError, id: &str) -> Response {
    of(error, id).into_http::<axum::body::Body>()
}

/// At most so many bytes of `text`.
fn clipped(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &text[..end])
}
