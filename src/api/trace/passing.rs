//! Events that leave their times in a trace as they pass.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures::{Stream, StreamExt};

use crate::{
    api::{Accepted, Events, Place, frame::account::Account},
    domain::TokenEvent,
};

impl Accepted {
    /// The same, whose times become spans of the request's trace where that is recorded.
    pub(in crate::api) fn traced(self, account: &Arc<Account>) -> Self {
        let Some(trace) = account.trace() else { return self };
        trace.answers(&self.model.name, self.adapter.as_ref());
        let events = traced(self.events, account, self.submitted);
        Self { events, ..self }
    }
}

/// `events`, which leave their times in the trace of `account` as they pass.
pub(in crate::api) fn traced(events: Events, account: &Arc<Account>, submitted: Instant) -> Events {
    Traced { events, account: Arc::clone(account), submitted, has_begun: false }.boxed()
}

struct Traced {
    events: Events,
    account: Arc<Account>,
    submitted: Instant,
    has_begun: bool,
}

impl Stream for Traced {
    type Item = (Place, TokenEvent);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.events.poll_next_unpin(context);
        let (Poll::Ready(Some((place, event))), Some(trace)) = (&next, self.account.trace()) else {
            return next;
        };
        match event {
            TokenEvent::Given(_) => {}
            TokenEvent::Token(_) if self.has_begun => {}
            TokenEvent::Token(_) => {
                trace.first_token();
                self.has_begun = true;
            }
            TokenEvent::Finished(end) => trace.sequence(*place, self.submitted, &end.timings, Some(end)),
            TokenEvent::Failed(_, timings) => trace.sequence(*place, self.submitted, timings, None),
        }
        next
    }
}
