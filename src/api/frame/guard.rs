//! A server without keys answers only to its own hosts: a web page must not reach it through a name that it made
//! point here (DNS rebinding), nor from another origin. With keys a page has nothing to send, so nothing is checked.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, uri::Authority},
    middleware::Next,
    response::Response,
};

use tower_http::cors::{AllowOrigin, CorsLayer};

use super::Frame;
use crate::api::{
    ApiError, ErrorCode,
    trace::{TRACEPARENT, TRACESTATE},
};

/// Names the fields of a body that were ignored.
pub(in crate::api) const DEPT_IGNORED: HeaderName = HeaderName::from_static("dept-ignored");

/// The hosts that requests may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Loopback names and this address.
    Loopback(IpAddr),
    /// Any; a request from a web page must come from the very host that it names.
    Any,
    /// Any, from any page: who asks shows a key.
    Keyed,
}

/// Web pages of these origins may read the answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Arc<[String]>);

/// How long a browser may remember what a page may do.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

impl Origins {
    /// These, as a browser writes them (`https://app.example`), or `*` for all.
    pub fn new(origins: impl IntoIterator<Item = String>) -> Self {
        Self(origins.into_iter().collect())
    }

    fn takes(&self, origin: &HeaderValue) -> bool {
        self.0.iter().any(|listed| listed == "*" || listed.as_bytes() == origin.as_bytes())
    }

    /// What answers the browsers of those pages; `None` when there are none.
    pub(in crate::api) fn layer(&self) -> Option<CorsLayer> {
        if self.0.is_empty() {
            return None;
        }
        let origins = self.clone();
        let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let request_id = HeaderName::from_static("x-request-id");
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| origins.takes(origin)))
            .allow_methods(methods)
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::IF_MATCH,
                header::IF_NONE_MATCH,
                request_id.clone(),
                TRACEPARENT,
                TRACESTATE,
            ])
            .expose_headers([header::ETAG, header::RETRY_AFTER, DEPT_IGNORED, request_id, TRACEPARENT])
            .max_age(PREFLIGHT_AGE);
        Some(layer)
    }
}

impl Hosts {
    /// For a server that listens on `address`: strict on loopback, else open, since who opens an address beyond
    /// loopback has names for it that only they know.
    pub fn of(address: SocketAddr) -> Self {
        if address.ip().is_loopback() { Self::Loopback(address.ip()) } else { Self::Any }
    }

    fn takes(self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match (self, bare.parse::<IpAddr>()) {
            (Self::Any | Self::Keyed, _) => true,
            (Self::Loopback(bound), Ok(ip)) => ip.is_loopback() || ip == bound,
            (Self::Loopback(_), Err(_)) => bare.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether a request with these headers may pass.
    fn check(
        self,
        origins: &Origins,
        headers: &HeaderMap,
        authority: Option<&Authority>,
    ) -> Result<(), ApiError> {
        if headers.get_all(header::HOST).iter().count() > 1 {
            let message = "the request has more than one Host header: send one";
            return Err(ApiError::invalid(header::HOST.as_str(), message));
        }
        if self == Self::Keyed {
            return Ok(());
        }
        if authority.is_some_and(|authority| !self.takes(authority.host())) {
            return Err(refused(&header::HOST, headers));
        }
        let host = match headers.get(header::HOST) {
            Some(value) => Some(value.to_str().ok().and_then(|text| text.parse::<Authority>().ok())),
            None => authority.cloned().map(Some),
        };
        let host = match host {
            // Without a Host there is no browser.
            None => None,
            Some(Some(host)) if self.takes(host.host()) => Some(host),
            Some(_) => return Err(refused(&header::HOST, headers)),
        };
        let Some(origin) = headers.get(header::ORIGIN).filter(|origin| !origins.takes(origin)) else {
            return Ok(());
        };
        let origin =
            origin.to_str().ok().and_then(|text| text.split_once("://")?.1.parse::<Authority>().ok());
        let same = |origin: &Authority| host.as_ref().is_some_and(|host| host.host() == origin.host());
        match origin {
            Some(origin) if same(&origin) || (self != Self::Any && self.takes(origin.host())) => Ok(()),
            _ => Err(refused(&header::ORIGIN, headers)),
        }
    }
}

fn refused(name: &HeaderName, headers: &HeaderMap) -> ApiError {
    let value = headers.get(name).map_or("".into(), |value| String::from_utf8_lossy(value.as_bytes()));
    let message = format!("this server does not answer to {name} '{value}': use its own address");
    ApiError::new(ErrorCode::Forbidden, message).about(name.as_str())
}

/// Lets a request pass or refuses it.
pub(super) async fn check(
    State(frame): State<Frame>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    frame.hosts.check(&frame.origins, request.headers(), request.uri().authority())?;
    Ok(next.run(request).await)
}
