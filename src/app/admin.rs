//! Health and metrics on a thread of their own, so that they answer while everything else is busy or stuck.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::{
    api::{
        Readiness,
        http::{self, Hosts},
    },
    telemetry::Metrics,
};

/// Serves the admin address until the process ends.
pub(super) fn spawn(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
) -> std::io::Result<()> {
    let hosts = Hosts::of(listener.local_addr()?);
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move {
        let listener = TcpListener::from_std(listener)?;
        axum::serve(listener, http::admin(metrics, readiness, hosts)).await
    };
    let run = move || {
        if let Err(error) = runtime.block_on(serve) {
            tracing::error!(%error, "the admin address has stopped answering");
        }
    };
    std::thread::Builder::new().name("admin".to_owned()).spawn(run)?;
    Ok(())
}
