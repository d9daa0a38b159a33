//! A response as a stream of messages.

use std::sync::Arc;

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tonic::Status;

use super::{
    convert::Writer,
    proto::{GenerateStreamResponse, generate_stream_response::Event},
    status,
};
use crate::api::{ApiError, Events, Gathering, frame::account::Account};

/// A response under way. Dropping it cancels what still runs.
struct Streaming {
    writer: Writer,
    account: Arc<Account>,
    /// `None` once the last word is said.
    live: Option<(Events, Gathering)>,
}

/// The messages of a response: a delta for each piece of text, then all of it.
pub(super) fn messages(
    writer: Writer,
    events: Events,
    gathering: Gathering,
    account: Arc<Account>,
) -> BoxStream<'static, Result<GenerateStreamResponse, Status>> {
    let streaming = Streaming { writer, account, live: Some((events, gathering)) };
    let messages = stream::unfold(streaming, |mut streaming| async {
        let message = streaming.next().await.transpose()?;
        let message = message.map_err(|error| streaming.fail(&error));
        Some((message.map(|event| GenerateStreamResponse { event: Some(event) }), streaming))
    });
    messages.boxed()
}

impl Streaming {
    async fn next(&mut self) -> Result<Option<Event>, ApiError> {
        while let Some((events, gathering)) = self.live.as_mut() {
            match events.next().await {
                Some((place, event)) => {
                    if let Some(piece) = gathering.take(place, event)? {
                        return Ok(Some(Event::Delta(self.writer.delta(piece))));
                    }
                }
                None => return self.conclude().map(Some),
            }
        }
        Ok(None)
    }

    /// All sequences have ended: the whole response.
    fn conclude(&mut self) -> Result<Event, ApiError> {
        let (_, gathering) = self.live.take().ok_or_else(ApiError::internal)?;
        let choices = gathering.finish()?.pop().ok_or_else(ApiError::internal)?;
        self.account.settle("ok");
        Ok(Event::Response(self.writer.response(choices)))
    }

    /// The error is the last word; what still runs is cancelled.
    fn fail(&mut self, error: &ApiError) -> Status {
        self.live = None;
        self.account.settle(error.code.as_str());
        status::of(error, &self.writer.id)
    }
}
