//! From a request's grammar to one that the model can follow.

use std::sync::Arc;

use super::{ApiError, ErrorCode, Service};
use crate::{
    domain::{Choices, GenerateRequest, Grammar, GrammarError, Pattern, Schema},
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

/// A text that `regex` matches.
pub(super) fn pattern(regex: &str, param: &str) -> Result<Grammar, ApiError> {
    Pattern::new(regex).map(Grammar::Regex).map_err(|error| refused(param, &error))
}

/// One of `texts`.
pub(super) fn choices(texts: Vec<String>, param: &str) -> Result<Grammar, ApiError> {
    Choices::new(texts).map(Grammar::Choice).map_err(|error| refused(param, &error))
}

/// JSON that `schema`, itself JSON, describes.
pub(super) fn schema(schema: &str, param: &str) -> Result<Grammar, ApiError> {
    Schema::new(schema).map(Grammar::JsonSchema).map_err(|error| refused(param, &error))
}

fn refused(param: &str, error: &GrammarError) -> ApiError {
    let param = error.at().map_or_else(|| param.to_owned(), |at| format!("{param}[{at}]"));
    ApiError::invalid(param.clone(), format!("{param} can't be used: {error}"))
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
