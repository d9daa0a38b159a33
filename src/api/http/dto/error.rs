use serde::Serialize;
use utoipa::ToSchema;

use crate::api::ApiError;

/// Longest message in characters. Messages quote what a client sent, which may be anything.
const MAX_MESSAGE: usize = 1000;

/// Longest name of a field in characters.
const MAX_PARAM: usize = 100;

/// The body of every failure.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorObject,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorObject {
    /// What was wrong, with the values, and what to do.
    pub message: String,
    /// The family of the code.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field at fault.
    pub param: Option<String>,
    /// What went wrong, for programs.
    pub code: &'static str,
    /// Stands in the server's log and in the `x-request-id` header.
    pub request_id: String,
}

impl ErrorBody {
    /// The body for `error` in the response to the request `request_id`.
    pub fn new(error: &ApiError, request_id: &str) -> Self {
        let row = error.code.row();
        Self {
            error: ErrorObject {
                message: clipped(&error.message, MAX_MESSAGE),
                kind: row.kind,
                param: error.param.as_deref().map(|param| clipped(param, MAX_PARAM)),
                code: row.name,
                request_id: request_id.to_owned(),
            },
        }
    }
}

fn clipped(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ErrorCode;

    #[test]
    fn what_a_client_sent_is_not_echoed_without_end() {
        let error = ApiError::invalid("é".repeat(5000), "x".repeat(5000));
        let body = ErrorBody::new(&error, "id").error;
        assert_eq!(body.message, "x".repeat(1000) + "…");
        assert_eq!(body.param, Some("é".repeat(100) + "…"));
        let short = ErrorBody::new(&ApiError::new(ErrorCode::NotFound, "none"), "id").error;
        assert_eq!((short.message.as_str(), short.param), ("none", None));
    }
}
