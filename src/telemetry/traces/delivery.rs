//! Spans on their way to a collector: a queue with an end, a thread that posts what is in it.
//!
//! Whoever serves requests only puts spans into the queue, which never waits. A collector that is slow, away or refuses
//! costs spans and a line in the log, nothing else.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{StatusCode, Url, header};
use tokio::sync::{mpsc, oneshot};

use super::{Traces, span::Span, wire};
use crate::telemetry::Metrics;

/// Requests whose spans wait; those of one more are lost.
const QUEUE: usize = 2048;

/// Spans in a message, or a few more: a request's are not torn apart.
const BATCH: usize = 512;

/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Least time between two complaints in the log.
const QUIET: Duration = Duration::from_secs(60);

/// Where spans go, and what is said with them.
#[derive(Debug, Clone)]
pub struct Collector {
    /// What speaks to it.
    pub client: reqwest::Client,
    /// Where it takes spans.
    pub url: Url,
    /// What it wants to hear beside them, such as a key.
    pub headers: header::HeaderMap,
    /// Who tells: `service.name` and the like.
    pub resource: Vec<(String, String)>,
}

/// How often it is spoken to.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long spans wait for others to go with.
    pub delay: Duration,
    /// How long the first retry waits; each further one twice as long.
    pub first_wait: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { delay: Duration::from_secs(1), first_wait: Duration::from_secs(1) }
    }
}

/// The thread that delivers. Dropping it makes it stop once what is queued has been tried.
#[derive(Debug)]
pub struct Delivery {
    stop: oneshot::Sender<()>,
    done: oneshot::Receiver<()>,
}

impl Delivery {
    /// Delivers what is queued, for at most `patience`.
    pub async fn finish(self, patience: Duration) {
        drop(self.stop);
        // An end without a word is an end too.
        if tokio::time::timeout(patience, self.done).await.is_err() {
            tracing::warn!("the last traces did not reach the collector in time");
        }
    }
}

/// Starts a thread that delivers the share `sample` of all traces, and those that their callers want.
///
/// # Errors
/// When the system refuses the thread.
pub fn start(
    collector: Collector,
    sample: f64,
    pace: Pace,
    metrics: Arc<Metrics>,
) -> std::io::Result<(Traces, Delivery)> {
    let (queue, spans) = mpsc::channel(QUEUE);
    let ((stop, stopped), (finished, done)) = (oneshot::channel(), oneshot::channel());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let postman = Postman {
        collector,
        pace,
        metrics: Arc::clone(&metrics),
        spans,
        stopped,
        is_stopping: false,
        lost_before: 0,
        complained: None,
        is_in_trouble: false,
    };
    let run = move || {
        runtime.block_on(postman.run());
        // Who has waited long enough is gone.
        let _ = finished.send(());
    };
    std::thread::Builder::new().name("traces".to_owned()).spawn(run)?;
    Ok((Traces { queue, sample, metrics }, Delivery { stop, done }))
}

/// Why a message was not taken.
struct Refusal {
    reason: String,
    /// Whether it may be taken later, and when where the collector says.
    later: Option<Option<Duration>>,
}

struct Postman {
    collector: Collector,
    pace: Pace,
    metrics: Arc<Metrics>,
    spans: mpsc::Receiver<Vec<Span>>,
    stopped: oneshot::Receiver<()>,
    is_stopping: bool,
    /// Spans that were lost when that was last looked at.
    lost_before: u64,
    /// When the log was last told of trouble.
    complained: Option<Instant>,
    /// Whether that is the last that the log was told.
    is_in_trouble: bool,
}

impl Postman {
    async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            self.deliver(batch).await;
        }
    }

    /// The next spans; `None` when no more will come.
    async fn next(&mut self) -> Option<Vec<Span>> {
        if !self.is_stopping {
            tokio::select! {
                biased;
                spans = self.spans.recv() => return spans,
                _ = &mut self.stopped => self.stop(),
            }
        }
        self.spans.recv().await
    }

    /// Takes nothing new.
    fn stop(&mut self) {
        self.is_stopping = true;
        self.spans.close();
    }

    /// Waits for spans, and a moment for others to go with.
    async fn gather(&mut self) -> Option<Vec<Span>> {
        let mut batch = self.next().await?;
        let due = tokio::time::Instant::now() + self.pace.delay;
        while batch.len() < BATCH {
            match tokio::time::timeout_at(due, self.next()).await {
                Ok(Some(more)) => batch.extend(more),
                Ok(None) | Err(_) => break,
            }
        }
        Some(batch)
    }

    /// Posts a message until it is taken or there is no hope for it.
    async fn deliver(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let body = Bytes::from(wire::request(&self.collector.resource, batch));
        let mut wait = self.pace.first_wait;
        loop {
            match self.post(body.clone()).await {
                Ok(None) => {
                    self.metrics.trace_spans.sent.inc_by(count);
                    return self.note_success();
                }
                Ok(Some((rejected, reason))) => {
                    let rejected = rejected.min(count);
                    self.metrics.trace_spans.sent.inc_by(count - rejected);
                    self.metrics.trace_spans.lost.inc_by(rejected);
                    return self.complain(&format!("it rejected {rejected} of {count} spans: {reason}"));
                }
                Err(Refusal { reason, later }) => {
                    self.complain(&reason);
                    let Some(said) = later.filter(|_| !self.is_stopping) else {
                        self.metrics.trace_spans.lost.inc_by(count);
                        return;
                    };
                    self.rest(said.unwrap_or(wait).min(LONGEST_WAIT)).await;
                    wait = (2 * wait).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// Waits, unless it is time to stop.
    async fn rest(&mut self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = &mut self.stopped => self.stop(),
        }
    }

    /// Posts a message once: what of it was rejected, and why.
    async fn post(&self, body: Bytes) -> Result<Option<(u64, String)>, Refusal> {
        let Collector { client, url, headers, .. } = &self.collector;
        let request = client
            .post(url.clone())
            .headers(headers.clone())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .timeout(PATIENCE)
            .body(body);
        // The URL is in what the error says; what it wraps says why.
        let broken = |error: reqwest::Error| Refusal { reason: innermost(&error), later: Some(None) };
        let response = request.send().await.map_err(broken)?;
        let status = response.status();
        if status.is_success() {
            return Ok(wire::rejected(&response.bytes().await.map_err(broken)?));
        }
        let later = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        let said =
            response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let later = later.contains(&status).then_some(said.map(Duration::from_secs));
        Err(Refusal { reason: format!("it answers {status}"), later })
    }

    /// Tells the log of trouble: once, however long it lasts, and not every time where it comes and goes.
    fn complain(&mut self, reason: &str) {
        if self.is_in_trouble || self.complained.is_some_and(|last| last.elapsed() < QUIET) {
            return;
        }
        self.is_in_trouble = true;
        self.complained = Some(Instant::now());
        tracing::warn!(
            collector = %self.collector.url, reason,
            "traces do not reach the collector: requests are served all the same, and spans that find no room are lost"
        );
    }

    fn note_success(&mut self) {
        let lost = self.metrics.trace_spans.lost.get();
        if std::mem::take(&mut self.is_in_trouble) {
            tracing::info!(spans_lost = lost, "traces reach the collector again");
        } else if lost > self.lost_before {
            self.complain("more spans come than it takes");
        }
        self.lost_before = lost;
    }
}

/// What is at the bottom of an error.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
