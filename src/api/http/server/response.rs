//! An answer's body that notes whether its client takes it.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::activity::InFlight;

/// The client has not taken what it was handed.
#[derive(Debug, thiserror::Error)]
#[error("the client does not read its answer")]
pub(super) struct Stalled;

/// The error of a body.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a body is handed to its connection, part by part. The connection asks for the next part when it has room.
pub(super) struct Handover(Mutex<Parts>);

struct Parts {
    /// `None` when it has ended.
    live: Option<(Body, InFlight)>,
    /// When the last part was handed over, until the next one is asked for.
    handed: Option<Instant>,
    stalled: bool,
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handover")
    }
}

impl Handover {
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the body, and with it what makes it, if its last part has not been taken for so long.
    pub fn end_if_stalled(&self, now: Instant, limit: Duration) {
        let mut parts = self.parts();
        if parts.handed.is_some_and(|handed| now.duration_since(handed) >= limit) {
            parts.stalled = true;
            let ended = parts.live.take();
            drop(parts);
            drop(ended);
        }
    }
}

/// The body of an answer.
pub(super) struct Watched {
    handover: Arc<Handover>,
    /// Whether the connection's watcher knows of it: only answers of several parts are worth that.
    known: bool,
}

impl Watched {
    pub fn new(body: Body, in_flight: InFlight) -> Self {
        let parts = Parts { live: Some((body, in_flight)), handed: None, stalled: false };
        Self { handover: Arc::new(Handover(Mutex::new(parts))), known: false }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut parts = this.handover.parts();
        parts.handed = None;
        let Some((body, in_flight)) = parts.live.as_mut() else {
            return Poll::Ready(parts.stalled.then(|| Err(Stalled.into())));
        };
        let part = ready!(Pin::new(&mut *body).poll_frame(context));
        let more = matches!(part, Some(Ok(_))) && !body.is_end_stream();
        if !more {
            parts.live = None;
            return Poll::Ready(part.map(|part| part.map_err(Into::into)));
        }
        if !this.known {
            in_flight.activity().watch(&this.handover);
            this.known = true;
        }
        parts.handed = Some(Instant::now());
        Poll::Ready(part.map(|part| part.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        let parts = self.handover.parts();
        !parts.stalled && parts.live.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.handover.parts().live.as_ref().map_or_else(SizeHint::default, |(body, _)| body.size_hint())
    }
}
