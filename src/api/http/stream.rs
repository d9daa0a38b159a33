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
use crate::{
    api::{ApiError, Choice, Events, Gathering, Piece, Place},
    domain::TokenEvent,
};

/// How a response is told while it comes: each API has its own form. The failure and the last mark are all APIs'.
pub(super) trait Script: Send + 'static {
    /// The request's id.
    fn id(&self) -> &str;

    /// What is said before anything has come.
    fn begin(&mut self, _say: &mut Frames) {}

    /// News of a sequence.
    fn piece(&mut self, piece: Piece, so_far: &Gathering, say: &mut Frames);

    /// A sequence has ended.
    fn end(&mut self, _place: Place, _so_far: &Gathering, _say: &mut Frames) {}

    /// All sequences have ended.
    fn finish(&mut self, results: Vec<Vec<Choice>>, say: &mut Frames);
}

/// Events that wait to be sent.
#[derive(Default)]
pub(super) struct Frames(VecDeque<Event>);

impl Frames {
    /// Says `value`.
    pub fn say(&mut self, value: &impl Serialize) {
        let event = Event::default().json_data(value);
        self.0.push_back(event.expect("the JSON forms are strings, numbers and lists of them"));
    }
}

/// Tokens one by one, then the whole response.
impl Script for Writer {
    fn id(&self) -> &str {
        &self.id
    }

    fn piece(&mut self, piece: Piece, _so_far: &Gathering, say: &mut Frames) {
        say.say(&self.event(piece));
    }

    fn finish(&mut self, results: Vec<Vec<Choice>>, say: &mut Frames) {
        say.say(&self.response(results));
    }
}

/// A response under way. Dropping it cancels what still runs.
struct Streaming<S> {
    script: S,
    account: Arc<Account>,
    /// `None` once the last word is said.
    live: Option<(Events, Gathering)>,
    frames: Frames,
}

/// The response that streams `events`.
pub(super) fn respond(
    mut script: impl Script,
    events: Events,
    gathering: Gathering,
    account: Arc<Account>,
    ping: Duration,
) -> Response {
    let mut frames = Frames::default();
    script.begin(&mut frames);
    let streaming = Streaming { script, account, live: Some((events, gathering)), frames };
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

impl<S: Script> Streaming<S> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.frames.0.pop_front() {
                return Some(event);
            }
            let (events, _) = self.live.as_mut()?;
            let outcome = match events.next().await {
                Some((place, event)) => self.tell(place, event),
                None => self.conclude(),
            };
            if let Err(error) = outcome {
                self.fail(&error);
            }
        }
    }

    fn tell(&mut self, place: Place, event: TokenEvent) -> Result<(), ApiError> {
        let Some((_, gathering)) = self.live.as_mut() else { return Ok(()) };
        if let Some(piece) = gathering.take(place, event)? {
            self.script.piece(piece, gathering, &mut self.frames);
        }
        if gathering.end(place).is_some() {
            self.script.end(place, gathering, &mut self.frames);
        }
        Ok(())
    }

    /// All sequences have ended: what is said then, and the mark that it was whole.
    fn conclude(&mut self) -> Result<(), ApiError> {
        let Some((_, gathering)) = self.live.take() else { return Ok(()) };
        self.script.finish(gathering.finish()?, &mut self.frames);
        self.frames.0.push_back(Event::default().data("[DONE]"));
        self.account.settle("ok");
        Ok(())
    }

    /// The error is the last word; what still runs is cancelled.
    fn fail(&mut self, error: &ApiError) {
        self.live = None;
        self.frames.say(&ErrorBody::new(error, self.script.id()));
        self.account.settle(error.code.as_str());
    }
}
