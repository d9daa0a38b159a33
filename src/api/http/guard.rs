//! A server without keys answers only to its own hosts: a web page must not reach it through a name that it made
//! point here (DNS rebinding), nor from another origin.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, header, uri::Authority},
    middleware::Next,
    response::Response,
};

use super::Frame;
use crate::api::{ApiError, ErrorCode};

/// The hosts that requests may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Loopback names and this address.
    Loopback(IpAddr),
    /// Any; a request from a web page must come from the very host that it names.
    Any,
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
            (Self::Any, _) => true,
            (Self::Loopback(bound), Ok(ip)) => ip.is_loopback() || ip == bound,
            (Self::Loopback(_), Err(_)) => bare.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether a request with these headers may pass.
    fn check(self, headers: &HeaderMap, authority: Option<&Authority>) -> Result<(), ApiError> {
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
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
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
    frame.hosts.check(request.headers(), request.uri().authority())?;
    Ok(next.run(request).await)
}
