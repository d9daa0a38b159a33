//! Health and metrics on a thread of their own, so that they answer while everything else is busy or stuck.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};

use crate::{
    api::{
        Readiness,
        http::{
            self, Hosts,
            server::{self, Phase},
        },
    },
    config::ConnectionLimits,
    telemetry::Metrics,
};

/// Probes and scrapes are few and quick; who holds more connections than this waits.
const LIMITS: ConnectionLimits = ConnectionLimits {
    max_connections: 64,
    head_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(75),
    stall_timeout: Duration::from_secs(30),
};

/// Serves the admin address until the process ends.
pub(super) fn spawn(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    stuck_after: Duration,
) -> std::io::Result<()> {
    let hosts = Hosts::of(listener.local_addr()?);
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move {
        let listener = TcpListener::from_std(listener)?;
        // Held to the end: it never drains.
        let (_phase, phases) = watch::channel(Phase::Serving);
        let routes = http::admin(metrics, readiness, stuck_after, hosts);
        server::serve(listener, None, routes, LIMITS, phases).await;
        std::io::Result::Ok(())
    };
    let run = move || {
        if let Err(error) = runtime.block_on(serve) {
            tracing::error!(%error, "the admin address has stopped answering");
        }
    };
    std::thread::Builder::new().name("admin".to_owned()).spawn(run)?;
    Ok(())
}
