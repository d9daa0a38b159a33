//! A socket that notes what goes through it, and puts words to the errors that hyper answers by itself.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use super::{MAX_HEAD, MAX_HEADERS, activity::Activity};
use crate::api::{ApiError, ErrorCode, http::dto::ErrorBody};

/// A socket under watch.
pub(super) struct Socket<S> {
    inner: S,
    activity: Arc<Activity>,
    /// What goes out in place of an answer of hyper's own.
    reply: Option<Reply>,
}

struct Reply {
    bytes: Vec<u8>,
    sent: usize,
}

impl<S> Socket<S> {
    pub fn new(inner: S, activity: Arc<Activity>) -> Self {
        Self { inner, activity, reply: None }
    }
}

impl<S: AsyncWrite + Unpin> Socket<S> {
    /// Notes whether the client leaves room.
    fn noted<T>(&self, poll: Poll<T>) -> Poll<T> {
        match poll {
            Poll::Pending => self.activity.is_blocked(Instant::now()),
            Poll::Ready(_) => self.activity.has_written(),
        }
        poll
    }

    /// Sends the reply that stands in for `length` bytes of hyper's.
    fn poll_reply(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        while let Some(reply) = &mut self.reply {
            let Some(rest) = reply.bytes.get(reply.sent..).filter(|rest| !rest.is_empty()) else {
                self.reply = None;
                break;
            };
            let poll = Pin::new(&mut self.inner).poll_write(context, rest);
            match ready!(self.noted(poll))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.reply.iter_mut().for_each(|reply| reply.sent += sent),
            }
        }
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.activity.has_read(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.reply.is_none() && self.activity.is_between_requests() {
            self.reply = reply_for(bytes);
        }
        if self.reply.is_some() {
            return self.poll_reply(context, bytes.len());
        }
        let poll = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.noted(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next()) {
            return self.poll_write(context, only);
        }
        let poll = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.noted(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(context);
        self.noted(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(context);
        self.noted(poll)
    }
}

/// What to say in place of `head`, if it is one that hyper writes when it can't read a request: no body, and nothing
/// behind it, since the connection ends.
fn reply_for(head: &[u8]) -> Option<Reply> {
    let status = head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let text = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    if !text.ends_with("\r\n\r\n") || !text.contains("\r\ncontent-length: 0\r\n") {
        return None;
    }
    let error = match status {
        b"400" => ApiError::new(
            ErrorCode::InvalidRequest,
            "the request's head is not HTTP: look at its first line and headers",
        ),
        b"414" | b"431" => ApiError::new(
            ErrorCode::HeadTooLarge,
            format!("the request's head is over {MAX_HEAD} bytes or {MAX_HEADERS} headers: send less"),
        ),
        _ => return None,
    };
    let id = Uuid::now_v7().to_string();
    let row = error.code.row();
    let body = serde_json::to_string(&ErrorBody::new(&error, &id)).ok()?;
    let reason = axum::http::StatusCode::from_u16(row.status).ok()?.canonical_reason().unwrap_or_default();
    tracing::info!(id, outcome = error.code.as_str(), "a request's head was refused");
    let bytes = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-request-id: {id}\r\n\
         connection: close\r\n\r\n{body}",
        row.status,
        body.len()
    );
    Some(Reply { bytes: bytes.into_bytes(), sent: 0 })
}
