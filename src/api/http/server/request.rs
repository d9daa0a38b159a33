//! A request's body that is taken to its end, wanted or not.
//!
//! A server may refuse before a body has come whole: a bad name, no key, too large. Closing then with bytes unread makes the
//! system send a reset, which can overtake the answer: the client sees a broken connection and never learns why. So what is
//! left is read and thrown away for a while beside the answer, and the connection may serve on.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Bytes;
use hyper::{
    Version,
    body::{Body as HttpBody, Frame, SizeHint},
};
use tokio::{runtime::Handle, time::timeout};

use super::activity::Activity;

/// Longest time for what nobody wants.
const LINGER: Duration = Duration::from_secs(5);

/// The body of a request on an HTTP/1 connection; HTTP/2 can refuse one body without losing an answer.
pub(super) struct Lingering<B: HttpBody + Send + Unpin + 'static> {
    /// `None` once it has ended.
    body: Option<B>,
    activity: Arc<Activity>,
    patience: Duration,
}

impl<B: HttpBody + Send + Unpin + 'static> Lingering<B> {
    /// Takes the rest of `body` for at most `patience` once its reader has let it go.
    pub fn new(body: B, activity: Arc<Activity>, patience: Duration) -> Self {
        Self { body: Some(body), activity, patience: patience.min(LINGER) }
    }
}

impl<B: HttpBody<Data = Bytes> + Send + Unpin + 'static> HttpBody for Lingering<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl<B: HttpBody + Send + Unpin + 'static> Drop for Lingering<B> {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let (Ok(runtime), patience) = (Handle::try_current(), self.patience) else { return };
        let in_flight = self.activity.begin(Version::HTTP_11);
        runtime.spawn(async move {
            let rest = async {
                while let Some(Ok(_)) =
                    std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
                {
                }
            };
            // Late or not, there is nobody to tell.
            let _ = timeout(patience, rest).await;
            drop(in_flight);
        });
    }
}
