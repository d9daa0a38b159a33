//! `If-Match` and `If-None-Match`.

use axum::http::{HeaderMap, HeaderName, header};

use crate::{adapter::catalogue::Precondition, api::ApiError};

/// The condition that a request makes.
///
/// # Errors
/// When a header is not one that this server can hold to.
pub(super) fn of(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    match (one(headers, header::IF_MATCH)?, one(headers, header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Present),
        (Some(tag), None) => {
            let version = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).map(str::parse);
            let wrong = || wrong("If-Match", tag, "the ETag of the adapter, \"sha256:…\" in quotes, or *");
            version.ok_or_else(wrong)?.map(Precondition::Is).map_err(|_| wrong())
        }
        (None, Some("*")) => Ok(Precondition::Absent),
        (None, Some(tag)) => Err(wrong("If-None-Match", tag, "*")),
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("If-Match", "If-Match and If-None-Match exclude each other: send one"))
        }
    }
}

fn one(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(&name).iter();
    let (first, second) = (values.next(), values.next());
    let text = first.map(|value| value.to_str().map_err(|_| wrong(name.as_str(), "no text", "an ETag")));
    if second.is_some() {
        return Err(wrong(name.as_str(), "several values", "one"));
    }
    text.transpose().map(|text| text.map(str::trim))
}

fn wrong(header: &str, found: &str, expected: &str) -> ApiError {
    ApiError::invalid(header, format!("{header} is {found}: send {expected}"))
}
