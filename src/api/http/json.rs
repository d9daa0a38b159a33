//! Reads a JSON body. Every way in which it can be wrong has its own answer.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, header},
};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Door;
use crate::api::{ApiError, ErrorCode};

/// A request's body, read as JSON.
pub(super) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Door> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, door: &Door) -> Result<Self, ApiError> {
        parse(&bytes(request, door).await?).map(Self)
    }
}

/// The body, said to be JSON, as it arrived.
pub(super) async fn bytes(request: Request, door: &Door) -> Result<Vec<u8>, ApiError> {
    check_encoding(request.headers())?;
    check_media_type(request.headers())?;
    let (limit, patience) = (door.options.max_body_bytes, door.options.body_timeout);
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared: Option<usize> = declared.and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    timeout(patience, read(request.into_body(), limit)).await.map_err(|_| {
        let message = format!("the request's body did not arrive within {patience:?}: send it faster");
        ApiError::new(ErrorCode::RequestTimeout, message)
    })?
}

/// A compressed body is refused: a few bytes could be gigabytes.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let identity = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    let Some(other) = headers.get_all(header::CONTENT_ENCODING).iter().find(|value| !identity(value)) else {
        return Ok(());
    };
    let other = String::from_utf8_lossy(other.as_bytes());
    let message = format!("the content-encoding is '{other}': send the body as it is");
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message).about("content-encoding"))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let sent = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let mut parts =
        sent.as_deref().unwrap_or_default().split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let is_json =
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    let in_utf_8 = |parameter: String| {
        let charset = parameter.strip_prefix("charset=").map(|charset| charset.trim_matches('"').to_owned());
        charset.is_none_or(|charset| matches!(charset.as_str(), "utf-8" | "utf8"))
    };
    if is_json && parts.all(in_utf_8) {
        return Ok(());
    }
    let found =
        sent.map_or("there is no content-type".into(), |sent| format!("the content-type is '{sent}'"));
    let message = format!("{found}: send the body as application/json, in UTF-8");
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message).about("content-type"))
}

fn too_large(limit: usize) -> ApiError {
    let message = format!("the request's body is over {limit} bytes: send less, or raise --max-body-bytes");
    ApiError::new(ErrorCode::TooLarge, message)
}

async fn read(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let broken = |_| ApiError::new(ErrorCode::InvalidRequest, "the request's body broke off");
        let chunk = chunk.map_err(broken)?;
        if bytes.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What the bytes say.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let invalid = |message: String| ApiError::new(ErrorCode::InvalidRequest, message);
    let text = std::str::from_utf8(body).map_err(|e| {
        invalid(format!("the body is not UTF-8: byte {} is not part of a character", e.valid_up_to()))
    })?;
    // serde would also fill a body's fields from a list, by position: an order that nobody has promised.
    if text.trim_start().starts_with('[') {
        return Err(invalid("the body is a JSON list: send an object with named fields".to_owned()));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value =
        serde_path_to_error::deserialize(&mut json).map_err(|error| match error.inner().is_data() {
            true => ApiError { param: blamed(&error), ..invalid(located(&error)) },
            false => invalid(format!("the body is not JSON: {}", error.inner())),
        })?;
    json.end().map_err(|cause| invalid(format!("the body is not JSON: {cause}")))?;
    Ok(value)
}

type PathError = serde_path_to_error::Error<serde_json::Error>;

/// The path to the value at fault, as `stop[1]`; `None` is the whole body.
fn path(error: &PathError) -> Option<String> {
    Some(error.path().to_string()).filter(|path| path != "." && path != "?")
}

/// The message with the path in front.
fn located(error: &PathError) -> String {
    path(error).map_or_else(|| error.inner().to_string(), |path| format!("{path}: {}", error.inner()))
}

/// The field at fault: where a field itself is unknown, missing or there twice, serde names it in its message only.
fn blamed(error: &PathError) -> Option<String> {
    let message = error.inner().to_string();
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split_once('`'))
        .map(|(field, _)| field.to_owned());
    match (path(error), named) {
        // The path to an unknown field ends with it.
        (Some(path), Some(field)) if path != field && !path.ends_with(&format!(".{field}")) => {
            Some(format!("{path}.{field}"))
        }
        (Some(path), Some(_)) => Some(path),
        (path, field) => path.or(field),
    }
}
