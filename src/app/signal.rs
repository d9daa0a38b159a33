//! The signals that end the process or make it read its files anew.

/// Waits for ctrl-c or SIGTERM, any number of times.
pub(super) struct Shutdowns {
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
}

impl Shutdowns {
    pub fn new() -> Self {
        Self {
            #[cfg(unix)]
            terminate: heard(tokio::signal::unix::SignalKind::terminate(), "SIGTERM"),
        }
    }

    /// Resolves at the next one.
    pub async fn next(&mut self) {
        let interrupt = async {
            if let Err(error) = tokio::signal::ctrl_c().await {
                tracing::error!(%error, "ctrl-c can't be heard");
                std::future::pending::<()>().await;
            }
        };
        #[cfg(unix)]
        tokio::select! {
            () = interrupt => {}
            () = next(&mut self.terminate) => {}
        }
        #[cfg(not(unix))]
        interrupt.await;
    }
}

/// Waits for SIGHUP, any number of times.
pub(super) struct Hangups {
    #[cfg(unix)]
    hangup: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    pub fn new() -> Self {
        Self {
            #[cfg(unix)]
            hangup: heard(tokio::signal::unix::SignalKind::hangup(), "SIGHUP"),
        }
    }

    /// Resolves at the next one.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        next(&mut self.hangup).await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
fn heard(kind: tokio::signal::unix::SignalKind, name: &str) -> Option<tokio::signal::unix::Signal> {
    let heard = tokio::signal::unix::signal(kind);
    heard.inspect_err(|error| tracing::error!(%error, "{name} can't be heard")).ok()
}

#[cfg(unix)]
async fn next(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
