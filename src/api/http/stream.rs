//! A response as server-sent events.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use futures::{StreamExt, stream};
use serde::Serialize;

use super::{
    account::{Account, Streams},
    dto::{ErrorBody, Writer},
};
use crate::api::{ApiError, Events, Gathering};

/// A response under way. Dropping it cancels what still runs.
struct Streaming {
    writer: Writer,
    account: Arc<Account>,
    /// `None` once the last word is said.
    live: Option<(Events, Gathering)>,
    pending: VecDeque<Event>,
}

/// The response that streams `events`.
pub(super) fn respond(
    writer: Writer,
    events: Events,
    gathering: Gathering,
    account: Arc<Account>,
    ping: Duration,
) -> Response {
    let live = Some((events, gathering));
    let streaming = Streaming { writer, account, live, pending: VecDeque::new() };
    let frames = stream::unfold(streaming, |mut streaming| async {
        let event = streaming.next().await?;
        Some((Ok::<_, Infallible>(event), streaming))
    });
    let alive = KeepAlive::new().interval(ping).text("ping");
    let mut response = Sse::new(frames).keep_alive(alive).into_response();
    // A proxy that buffers would undo the streaming.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response.extensions_mut().insert(Streams);
    response
}

impl Streaming {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            let (events, gathering) = self.live.as_mut()?;
            let outcome = match events.next().await {
                Some((place, event)) => gathering.take(place, event).map(|piece| {
                    self.pending.extend(piece.map(|piece| data(&self.writer.event(piece))));
                }),
                None => self.conclude(),
            };
            if let Err(error) = outcome {
                self.fail(&error);
            }
        }
    }

    /// All sequences have ended: the whole response, and the mark that it was whole.
    fn conclude(&mut self) -> Result<(), ApiError> {
        let Some((_, gathering)) = self.live.take() else { return Ok(()) };
        let response = self.writer.response(gathering.finish()?);
        self.pending.extend([data(&response), Event::default().data("[DONE]")]);
        self.account.settle("ok");
        Ok(())
    }

    /// The error is the last word; what still runs is cancelled.
    fn fail(&mut self, error: &ApiError) {
        self.live = None;
        self.pending.push_back(data(&ErrorBody::new(error, &self.writer.id)));
        self.account.settle(error.code.as_str());
    }
}

fn data(value: &impl Serialize) -> Event {
    Event::default().json_data(value).expect("the JSON forms are strings, numbers and lists of them")
}
