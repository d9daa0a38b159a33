//! Traces for OpenTelemetry: spans that have ended, made from times that are known anyway, sent as OTLP over HTTP.
//!
//! Nothing here is in the way of a request: a span is written down when its work is over, by the layer that answers, and a
//! thread of its own delivers it. So of the SDK only the wire is needed, and that is nine messages (`wire.rs`).

mod context;
mod delivery;
mod span;
mod wire;

use std::sync::Arc;

use tokio::sync::mpsc;

pub use context::{Caller, SpanId, TraceContext, TraceId};
pub use delivery::{Collector, Delivery, Pace, start};
pub use span::{Attribute, Calendar, Span, SpanKind, Value};

use super::Metrics;

/// Where spans are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces {
    queue: mpsc::Sender<Vec<Span>>,
    sample: f64,
    metrics: Arc<Metrics>,
}

impl Traces {
    /// The place of a new span: in its caller's trace, and recorded where the caller's is; else in a trace of its own, which is
    /// recorded as often as was configured.
    pub fn place(&self, caller: Option<TraceContext>) -> TraceContext {
        let trace = caller.map_or_else(TraceId::random, |caller| caller.trace);
        let sampled = caller.map_or_else(|| trace.is_among(self.sample), |caller| caller.sampled);
        TraceContext { trace, span: SpanId::random(), sampled }
    }

    /// Hands in the spans of a request. Never waits: where the queue is full they are lost, and counted.
    pub fn send(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        if self.queue.try_send(spans).is_err() {
            self.metrics.trace_spans.lost.inc_by(count);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
