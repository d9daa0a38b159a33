//! An adapter's files on their way to a client.

use axum::body::{Body, Bytes};
use futures::stream;

use crate::api::frame::turns::Turn;

/// What is handed to the connection at once.
const CHUNK: usize = 64 << 10;

/// `bytes` as a body. They stay in memory for as long as the client takes to read them, and so long the turn is held.
pub(super) fn body(bytes: Bytes, turn: Turn) -> Body {
    Body::from_stream(stream::unfold((bytes, turn), async |(mut bytes, turn)| {
        if bytes.is_empty() {
            return None;
        }
        // Copied: a slice would keep all of them in memory after the turn.
        let chunk = Bytes::copy_from_slice(&bytes.split_to(bytes.len().min(CHUNK)));
        Some((Ok::<_, std::convert::Infallible>(chunk), (bytes, turn)))
    }))
}
