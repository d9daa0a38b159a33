//! The life of one connection.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Instant};

use axum::{Router, body::Body, http::uri::Scheme};
use hyper::{Request, Version, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::{
    Phase,
    activity::{Activity, Verdict},
    draining,
    io::Socket,
    pulse,
    request::Lingering,
    response::Watched,
};
use crate::config::ConnectionLimits;

/// What every connection is given.
pub(super) struct Connection {
    pub router: Router,
    pub http: Arc<auto::Builder<TokioExecutor>>,
    pub limits: ConnectionLimits,
    pub phase: watch::Receiver<Phase>,
}

impl Connection {
    /// Serves the connection to its end.
    pub async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // A token is a small packet: it must not wait until the client has acknowledged the one before (some 40 ms).
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection refuses TCP_NODELAY");
        }
        let Some(tls) = tls else { return self.talk(stream, Scheme::HTTP).await };
        let mut phase = self.phase.clone();
        let handshake = tokio::select! {
            handshake = timeout(self.limits.head_timeout, tls.accept(stream)) => handshake,
            () = draining(&mut phase) => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.talk(stream, Scheme::HTTPS).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    /// `scheme` is what this connection speaks, whatever a client says of it; every request carries it as an extension.
    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, scheme: Scheme) {
        let Self { router, http, limits, mut phase } = self;
        let activity = Activity::new(Instant::now());
        let service = {
            let activity = Arc::clone(&activity);
            service_fn(move |request: Request<Incoming>| {
                let in_flight = activity.begin(request.version());
                let router = router.clone();
                let linger = |body| Lingering::new(body, Arc::clone(&activity), limits.head_timeout);
                let mut request = match request.version() {
                    Version::HTTP_2 => request.map(Body::new),
                    _ => request.map(|body| Body::new(linger(body))),
                };
                request.extensions_mut().insert(scheme.clone());
                async move {
                    let response = match router.oneshot(request).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    };
                    Ok::<_, Infallible>(response.map(|body| Watched::new(body, in_flight)))
                }
            })
        };
        let socket = TokioIo::new(Socket::new(stream, Arc::clone(&activity)));
        let mut connection = pin!(http.serve_connection(socket, service));
        let mut pulse = interval(pulse(&limits));
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = false;
        // Since when it has been asked to end.
        let mut ending: Option<Instant> = None;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended");
                    }
                    return;
                }
                () = draining(&mut phase), if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = pulse.tick() => match activity.judge(Instant::now(), &limits) {
                    Verdict::Sound => ending = None,
                    Verdict::Idle => match ending {
                        None => {
                            ending = Some(Instant::now());
                            connection.as_mut().graceful_shutdown();
                        }
                        Some(asked) if asked.elapsed() < limits.head_timeout => {}
                        Some(_) => return,
                    },
                    // Dropping it cancels what it asked for.
                    Verdict::Stuck(why) => return tracing::debug!(why, "a connection is dropped"),
                },
            }
        }
    }
}
