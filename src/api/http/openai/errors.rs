//! Failures in the words of these routes. Their shape is every route's.

use crate::api::{ApiError, ErrorCode};

/// A field that is known and can't be honoured.
pub(super) fn unsupported(param: &str, what: &str, instead: &str) -> ApiError {
    let message = format!("{param} can't be honoured: this server does not do {what}. Instead, {instead}");
    ApiError::invalid(param, message)
}

/// There is no such model, or none that the client may know of: the two are not told apart.
pub(super) fn no_model(name: &str) -> ApiError {
    let message = format!("there is no model '{name}': GET /v1/models lists those that you can use");
    ApiError::new(ErrorCode::AdapterNotFound, message).about("model")
}

/// What went wrong with the adapter that `model` names.
pub(super) fn about_model(error: ApiError, name: &str) -> ApiError {
    match error.code {
        ErrorCode::AdapterNotFound => no_model(name),
        _ if error.param.as_deref() == Some("adapter") => error.about("model"),
        _ => error,
    }
}

/// The same error, where the client has written `max_completion_tokens` for `max_tokens`.
pub(super) fn in_chat_words(mut error: ApiError) -> ApiError {
    if error.param.as_deref() == Some("max_tokens") {
        error.message = error.message.replace("max_tokens", "max_completion_tokens");
        error.param = Some("max_completion_tokens".to_owned());
    }
    error
}
