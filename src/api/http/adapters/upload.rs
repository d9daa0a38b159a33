//! The files of an upload, out of the forms in which they may come.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Multipart, Request, multipart::Field},
    http::header,
};
use http_body_util::{BodyExt, Limited};
use utoipa::ToSchema;

use crate::{
    adapter::{
        archive::{self, Limits},
        card::MAX_CARD_BYTES,
        folder::{AdapterBytes, MAX_CONFIG_BYTES},
        tensor_file::{MAX_FILE_BYTES, WeightsFormat},
    },
    api::http::{Door, generate::off_the_loop},
    api::{ApiError, ErrorCode},
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
            // What is packed may not take more memory than what is sent as it is.
            let limits = Limits { bytes: door.options.max_adapter_bytes as u64, ..Limits::default() };
            off_the_loop(move || unpack(&bytes, &limits)).await
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
    let (mut config, mut weights, mut card) = (None, None, None);
    while let Some(part) = parts.next_field().await.map_err(|error| failed(&error, most))? {
        let name = part.name().unwrap_or_default().to_owned();
        let (place, limit) = match name.as_str() {
            "config" => (&mut config, MAX_CONFIG_BYTES),
            "weights" => (&mut weights, MAX_FILE_BYTES),
            "card" => (&mut card, MAX_CARD_BYTES as u64),
            other => {
                let message =
                    format!("'{other}' is not a part of an adapter: send config, weights and maybe card");
                return Err(ApiError::invalid(other, message));
            }
        };
        let bytes = read_part(part, &name, usize::try_from(limit).unwrap_or(usize::MAX).min(most)).await?;
        if place.replace(bytes).is_some() {
            return Err(ApiError::invalid(&name, format!("the part '{name}' is there twice: send it once")));
        }
    }
    let missing = |name: &str| ApiError::invalid(name, format!("the part '{name}' is missing: send it"));
    let weights = weights.ok_or_else(|| missing("weights"))?;
    let config = config.ok_or_else(|| missing("config"))?;
    // A torch file is a zip archive; a safetensors file begins with the length of its header.
    let format =
        if weights.starts_with(b"PK\x03\x04") { WeightsFormat::TorchBin } else { WeightsFormat::Safetensors };
    Ok(AdapterBytes { config, format, weights, card })
}

async fn read_part(mut part: Field<'_>, name: &str, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = part.chunk().await.map_err(|error| failed(&error, limit))? {
        if bytes.len() + chunk.len() > limit {
            return Err(too_large(&format!("the part '{name}'"), limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
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

fn too_large(what: &str, limit: usize) -> ApiError {
    ApiError::new(ErrorCode::TooLarge, format!("{what} is over {limit} bytes, the most this server takes"))
}

fn unpack(bytes: &[u8], limits: &Limits) -> Result<AdapterBytes, ApiError> {
    archive::read(bytes, limits).map_err(|error| {
        let code = if error.is_too_large() { ErrorCode::TooLarge } else { ErrorCode::InvalidAdapter };
        ApiError::new(code, error.to_string()).about("body")
    })
}
