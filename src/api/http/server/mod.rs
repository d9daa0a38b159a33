//! The server loop under the HTTP door: accepts connections, speaks HTTP/1.1 or HTTP/2 on each, and bounds what a
//! client can hold: connections, heads, streams, time.
//!
//! hyper parses; what it leaves open is decided here: each connection notes what it does (`activity`), and a look at
//! that every few seconds ends those that do nothing, are too slow with a head, or never read.

mod activity;
mod connection;
mod io;
mod request;
mod response;

use std::{io::ErrorKind, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;

use connection::Connection;

use crate::config::ConnectionLimits;

/// Largest head of a request, in bytes.
pub const MAX_HEAD: usize = 32 << 10;

/// Most headers of a request.
pub const MAX_HEADERS: usize = 100;

/// Most requests at once on one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 128;

/// Resets that a client may leave unread behind it, before its connection is ended; and those that it may provoke.
/// They are the crate's own defaults, written down because they are what stops a reset flood.
const MAX_PENDING_RESETS: usize = 20;
const MAX_PROVOKED_RESETS: usize = 1024;

/// Bytes of an answer that wait for a client that does not read, for each stream.
const SEND_BUFFER: usize = 64 << 10;

/// How often a silent HTTP/2 connection is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);

/// How long accepting rests when the system has no more descriptors.
const REST: Duration = Duration::from_millis(100);

/// How often a connection is looked at.
fn pulse(limits: &ConnectionLimits) -> Duration {
    let shortest = limits.head_timeout.min(limits.idle_timeout).min(limits.stall_timeout);
    (shortest / 2).max(Duration::from_millis(1))
}

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It takes connections.
    Serving,
    /// It takes none; each connection ends when its requests have.
    Draining,
}

/// Serves `router` until the phase is [`Phase::Draining`] and every connection has ended.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: ConnectionLimits,
    mut phase: watch::Receiver<Phase>,
) {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let http = Arc::new(protocols());
    loop {
        // The place first: who can't be served waits in the system's queue, which costs no descriptor.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
            () = draining(&mut phase) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = draining(&mut phase) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, http, phase) = (router.clone(), Arc::clone(&http), phase.clone());
                let connection = Connection { router, http, limits, phase };
                let tls = tls.clone();
                tokio::spawn(async move {
                    connection.run(stream, tls).await;
                    drop(place);
                });
            }
            Err(error) if is_the_clients(error.kind()) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted: is the limit on open files too low?");
                tokio::time::sleep(REST).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(limits.max_connections).unwrap_or(u32::MAX);
    // All places are back when the last connection has ended.
    let _all = places.acquire_many(all).await;
}

/// Resolves when the server drains.
async fn draining(phase: &mut watch::Receiver<Phase>) {
    if phase.wait_for(|&phase| phase == Phase::Draining).await.is_err() {
        // Nobody is left to say so: serve on.
        std::future::pending::<()>().await;
    }
}

/// Whether a connection was gone before it was accepted.
fn is_the_clients(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

fn protocols() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // A head's time is ours to measure: hyper's timer would count the idle time between two requests as well.
    http.http1().header_read_timeout(None).max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_PROVOKED_RESETS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    http
}

#[cfg(test)]
mod tests;
