//! Prompts and answers in the log, for an operator who has asked for them (`--log-texts`) and for nobody else.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt};
use tracing::Span;

use super::{Events, Place};
use crate::{
    domain::{TenantId, TokenEvent},
    tokenizer::Tokenizer,
};

/// What the lines are logged by: `log = "info,dept::texts=off"` silences them without a restart.
pub const TARGET: &str = "dept::texts";

/// Texts of one tenant's request on their way into the log. Its lines say whose they are themselves: a request's id may be its
/// client's own choice.
pub(super) struct Texts {
    tenant: TenantId,
    span: Span,
}

impl Texts {
    /// Of the request whose span is current now, where texts are logged.
    pub fn wanted(logs_texts: bool, tenant: &TenantId) -> Option<Self> {
        logs_texts.then(|| Self { tenant: tenant.clone(), span: Span::current() })
    }

    /// Logs what the model reads: the prompts' tokens as text, templates filled in and what was too long cut.
    pub fn log_prompts(&self, tokenizer: &Tokenizer, prompts: &[Vec<u32>]) {
        for (prompt, tokens) in prompts.iter().enumerate() {
            self.log("prompt", prompt, &tokenizer.decode(tokens));
        }
    }

    /// Logs the likeliest label of each prompt.
    pub fn log_labels<'a>(&self, labels: impl Iterator<Item = &'a str>) {
        labels.enumerate().for_each(|(prompt, label)| self.log("likeliest label", prompt, label));
    }

    fn log(&self, what: &str, prompt: usize, text: &str) {
        let tenant = self.tenant.as_str();
        tracing::info!(target: TARGET, parent: &self.span, tenant, prompt, text, "{what}");
    }

    /// `events` of a request of so many choices a prompt, whose texts are logged as each ends.
    pub fn over(self, events: Events, prompts: usize, choices: usize) -> Events {
        let open = vec![Some(String::new()); prompts * choices];
        Told { events, choices, open, texts: self }.boxed()
    }
}

struct Told {
    events: Events,
    choices: usize,
    /// The texts so far of sequences that have not ended, by prompt and choice.
    open: Vec<Option<String>>,
    texts: Texts,
}

impl Told {
    fn note(&mut self, place: Place, event: &TokenEvent) {
        let at = place.result * self.choices + place.choice;
        match event {
            TokenEvent::Given(_) => {}
            TokenEvent::Token(token) => {
                if let Some(text) = &mut self.open[at] {
                    text.push_str(&token.text);
                }
            }
            TokenEvent::Finished(end) => self.end(at, &end.tail, end.reason.as_str()),
            TokenEvent::Failed(error, _) => self.end(at, "", &error.to_string()),
        }
    }

    fn end(&mut self, at: usize, tail: &str, finish: &str) {
        let Some(mut text) = self.open[at].take() else { return };
        text.push_str(tail);
        let (prompt, choice) = (at / self.choices, at % self.choices);
        let Texts { tenant, span } = &self.texts;
        let tenant = tenant.as_str();
        tracing::info!(target: TARGET, parent: span, tenant, prompt, choice, text, finish, "answer");
    }
}

impl Stream for Told {
    type Item = (Place, TokenEvent);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.events.poll_next_unpin(context);
        if let Poll::Ready(Some((place, event))) = &next {
            self.note(*place, event);
        }
        next
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        for at in 0..self.open.len() {
            self.end(at, "", "cancelled");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use futures::{FutureExt, StreamExt, stream};
    use serde_json::{Value, json};
    use tracing::{info_span, subscriber::with_default};

    use super::{Place, Texts, TokenEvent};
    use crate::domain::{Completion, FinishReason, GeneratedToken, SequenceError, TenantId, Timings, Usage};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn token(text: &str) -> TokenEvent {
        TokenEvent::Token(GeneratedToken { id: 3, text: text.into(), logprob: None, top: Vec::new() })
    }

    fn end(tail: &str) -> TokenEvent {
        TokenEvent::Finished(Completion {
            reason: FinishReason::Length,
            tail: tail.into(),
            end: None,
            usage: Usage::default(),
            timings: Timings::default(),
        })
    }

    /// The lines of a request of two prompts and two choices whose client takes so many of `events`.
    fn told(events: Vec<((usize, usize), TokenEvent)>, taken: usize) -> Vec<Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
        with_default(log.finish(), || {
            let placed =
                events.into_iter().map(|((result, choice), event)| (Place { result, choice }, event));
            let texts = info_span!("request", id = "r-1")
                .in_scope(|| Texts::wanted(true, &TenantId::default_tenant()));
            let events = texts.unwrap().over(stream::iter(placed).boxed(), 2, 2);
            assert_eq!(events.take(taken).count().now_or_never(), Some(taken));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_sequence_tells_its_text_once_and_why_it_ended() {
        let late = SequenceError::DeadlineExceeded(std::time::Duration::from_millis(5));
        let said = late.to_string();
        let events = vec![
            ((0, 0), token("go")),
            ((1, 1), token("bad\n\u{1b}[31m")),
            ((0, 0), token("od")),
            ((0, 0), end("!")),
            ((1, 1), TokenEvent::Failed(late, Timings::default())),
            ((0, 1), token("never looked at")),
        ];
        let lines = told(events, 5);
        let of = |line: &Value| json!([line["prompt"], line["choice"], line["text"], line["finish"]]);
        let expected = [
            json!([0, 0, "good!", "length"]),
            json!([1, 1, "bad\n\u{1b}[31m", said]),
            json!([0, 1, "", "cancelled"]),
            json!([1, 0, "", "cancelled"]),
        ];
        assert_eq!(lines.iter().map(of).collect::<Vec<_>>(), expected);
        for line in &lines {
            assert_eq!(
                (&line["target"], &line["span"]["id"]),
                (&json!("dept::texts"), &json!("r-1")),
                "{line}"
            );
        }
    }
}
