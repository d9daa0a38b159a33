//! From a request's grammar to one that the model can follow.

use std::sync::Arc;

use super::{ApiError, ErrorCode, Service};
use crate::{
    domain::{GenerateRequest, Grammar},
    grammar::{CompileError, Compiled},
};

impl Service {
    /// The compiled grammar of a request, where it has one.
    pub(super) fn grammar(&self, request: &GenerateRequest) -> Result<Option<Arc<Compiled>>, ApiError> {
        let Some(grammar) = &request.grammar else { return Ok(None) };
        let compiled = self.grammars.get(&request.tenant, grammar);
        compiled.map(Some).map_err(|error| match error.part() {
            Some(part) => ApiError::from(error).about(field(grammar).to_owned() + &part),
            None => ApiError::from(error).about(field(grammar)),
        })
    }
}

/// The field that a grammar comes in.
fn field(grammar: &Grammar) -> &'static str {
    match grammar {
        Grammar::JsonObject => "response_format",
        Grammar::JsonSchema(_) => "response_format.json_schema.schema",
        Grammar::Regex(_) => "regex",
        Grammar::Choice(_) => "choice",
    }
}

impl From<CompileError> for ApiError {
    fn from(error: CompileError) -> Self {
        let code = match error {
            CompileError::Busy => ErrorCode::Overloaded,
            _ => ErrorCode::InvalidRequest,
        };
        Self::new(code, error.to_string())
    }
}
