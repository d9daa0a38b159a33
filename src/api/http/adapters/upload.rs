//! The files of an upload, out of the forms in which they may come.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Multipart, Request},
    http::header,
};
use http_body_util::{BodyExt, Limited};
use utoipa::ToSchema;

use crate::{
    adapter::folder::AdapterBytes,
    api::{
        ApiError, ErrorCode,
        http::{Door, off_the_loop},
        upload::{self, Part, too_large, unpack},
    },
};

/// The parts of a multipart upload.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the form; the parts are read one by one")]
pub(super) struct Parts {
    /// `adapter_config.json`
    #[schema(format = Binary, content_media_type = "application/json")]
    config: String,
    /// `adapter_model.safetensors` or `adapter_model.bin`
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    weights: String,
    /// `card.toml`
    #[schema(format = Binary, content_media_type = "application/toml")]
    card: Option<String>,
}

/// Reads the body of an upload. Who calls holds a turn until the upload is stored: memory is bounded by their number and the
/// largest one.
///
/// # Errors
/// When it is too large, too slow, not one of the forms, or a part is missing.
pub(super) async fn read(door: &Door, request: Request) -> Result<AdapterBytes, ApiError> {
    let reading = tokio::time::timeout(door.options.body_timeout, read_body(door, request));
    let slow = |_| {
        let seconds = door.options.body_timeout.as_secs();
        ApiError::new(ErrorCode::RequestTimeout, format!("the upload did not arrive within {seconds} s"))
    };
    match reading.await.map_err(slow)?? {
        Form::Parts(files) => Ok(files),
        Form::Archive(bytes) => {
            let most = door.options.max_adapter_bytes;
            off_the_loop(move || unpack(&bytes, most)).await
        }
    }
}

enum Form {
    Parts(AdapterBytes),
    Archive(Bytes),
}

async fn read_body(door: &Door, request: Request) -> Result<Form, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let most = door.options.max_adapter_bytes;
    match kind.as_str() {
        "multipart/form-data" => read_parts(door, request).await.map(Form::Parts),
        "application/zip"
        | "application/gzip"
        | "application/x-gzip"
        | "application/x-tar+gzip"
        | "application/octet-stream" => {
            let body = Limited::new(request.into_body(), most).collect().await;
            let body =
                body.map_err(|error| match error.downcast_ref::<http_body_util::LengthLimitError>() {
                    Some(_) => too_large("the upload", most),
                    None => ApiError::invalid("body", format!("the upload can't be read: {error}")),
                })?;
            Ok(Form::Archive(body.to_bytes()))
        }
        other => {
            let message = format!(
                "content-type is '{other}': send multipart/form-data with the parts config, weights and maybe card, \
                 or application/zip or application/gzip"
            );
            Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
        }
    }
}

async fn read_parts(door: &Door, request: Request) -> Result<AdapterBytes, ApiError> {
    let most = door.options.max_adapter_bytes;
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head, Body::new(Limited::new(body, most)));
    let malformed =
        |error: String| ApiError::invalid("body", format!("the multipart body is malformed: {error}"));
    let mut parts =
        Multipart::from_request(request, &()).await.map_err(|error| malformed(error.body_text()))?;
    let mut files = upload::Parts::new(most);
    while let Some(mut field) = parts.next_field().await.map_err(|error| failed(&error, most))? {
        let part = match field.name().unwrap_or_default() {
            "config" => Part::Config,
            "weights" => Part::Weights,
            "card" => Part::Card,
            other => {
                let message =
                    format!("'{other}' is not a part of an adapter: send config, weights and maybe card");
                return Err(ApiError::invalid(other, message));
            }
        };
        files.begin(part)?;
        while let Some(chunk) = field.chunk().await.map_err(|error| failed(&error, most))? {
            files.extend(part, &chunk)?;
        }
    }
    files.files()
}

fn failed(error: &axum::extract::multipart::MultipartError, limit: usize) -> ApiError {
    if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE || is_length_limit(error) {
        return too_large("the upload", limit);
    }
    ApiError::invalid("body", format!("the multipart body is malformed: {}", error.body_text()))
}

/// Whether a body ended because it was over its limit, however deep that is said.
fn is_length_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<http_body_util::LengthLimitError>() || error.source().is_some_and(is_length_limit)
}
