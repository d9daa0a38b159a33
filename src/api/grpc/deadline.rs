//! `grpc-timeout`: a call's deadline is the request's own.

use std::time::{Duration, Instant};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName},
    middleware::Next,
    response::Response,
};

use crate::api::{ApiError, ErrorCode};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Most digits of a timeout.
const MAX_DIGITS: usize = 8;

/// When a call's client gives up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// The time that is left.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Ends a call whose deadline passes before it has begun to answer. What has begun is the engine's to end.
pub(super) async fn keep(mut request: Request, next: Next) -> Result<Response, ApiError> {
    let Some(timeout) = timeout(request.headers())? else { return Ok(next.run(request).await) };
    // A deadline beyond the clock's end is none.
    let Some(at) = Instant::now().checked_add(timeout) else { return Ok(next.run(request).await) };
    request.extensions_mut().insert(Deadline(at));
    tokio::time::timeout_at(at.into(), next.run(request)).await.map_err(|_| {
        let message =
            format!("the call did not finish within its deadline of {timeout:?}: give it more time");
        ApiError::new(ErrorCode::DeadlineExceeded, message)
    })
}

/// The time that a client gives its call.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    parse(text).map(Some).ok_or_else(|| {
        let found = String::from_utf8_lossy(value.as_bytes());
        let message =
            format!("grpc-timeout is '{found}': send 1 to {MAX_DIGITS} digits and one of H, M, S, m, u, n");
        ApiError::invalid(TIMEOUT.as_str(), message)
    })
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=MAX_DIGITS).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(3600 * count)),
        "M" => Some(Duration::from_secs(60 * count)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        let cases = [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5_000),
            ("6n", 6),
            ("0S", 0),
            ("00000007n", 7),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(3600 * 99_999_999)));
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", " 1S", "1S ", "123456789n", "1µ", "½S", "１S"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
