use serde::Serialize;
use utoipa::ToSchema;

use crate::api::ApiError;

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
                message: error.message.clone(),
                kind: row.kind,
                param: error.param.clone(),
                code: row.name,
                request_id: request_id.to_owned(),
            },
        }
    }
}
