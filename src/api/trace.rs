//! The spans of a request: one of its own, and one for each thing that it waited for.
//!
//! Names and attributes are those of OpenTelemetry's conventions for HTTP, RPC and generative models; what those have no name
//! for begins with `dept.`. Texts are in none of them: neither prompts nor answers, labels or stop strings.

mod notes;
mod passing;

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use axum::{extract::Request, http::HeaderName};

use super::{ErrorCode, Place};
use crate::{
    adapter::{AdapterLease, catalogue::Found},
    domain::{ClassifyRequest, Completion, GenerateRequest, Grammar, Timings},
    telemetry::traces::{Attribute, Calendar, Caller, Span, SpanId, SpanKind, TraceContext, TraceId, Traces},
};
use notes::{Notes, request_attributes};

pub(super) use passing::traced;

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Sequences of a request that have spans of their own; a request can have hundreds.
const SEQUENCES: usize = 8;

/// The trace of one request. One that is not recorded has it too, for its ids.
pub struct Trace {
    traces: Traces,
    /// The place of the request's own span.
    context: TraceContext,
    caller: Option<Caller>,
    clock: Calendar,
    notes: Mutex<Notes>,
}

/// How a request has ended.
pub(super) struct End<'a> {
    pub endpoint: &'a str,
    pub id: &'a str,
    pub tenant: Option<&'a str>,
    /// `ok`, `cancelled` or an error's code.
    pub outcome: &'static str,
}

impl Trace {
    /// A request has come.
    pub(super) fn begin(traces: Traces, request: &Request) -> Self {
        let values = |name| request.headers().get_all(name).iter().map(|value| value.as_bytes());
        let caller = Caller::read(values(&TRACEPARENT), values(&TRACESTATE));
        let context = traces.place(caller.as_ref().map(|caller| caller.context));
        let trace = Self { traces, context, caller, clock: Calendar::now(), notes: Mutex::default() };
        if trace.is_recorded() {
            trace.note(|notes| notes.attributes = request_attributes(request));
        }
        trace
    }

    /// Which trace it is.
    pub(super) fn id(&self) -> TraceId {
        self.context.trace
    }

    /// The `traceparent` of the answer: the request's own span.
    pub(super) fn context(&self) -> TraceContext {
        self.context
    }

    /// Whether anything but its ids is wanted.
    pub(super) fn is_recorded(&self) -> bool {
        self.context.sampled
    }

    /// The request wants text of `model`, an adapter's name or the backbone's.
    pub(super) fn generates(
        &self,
        operation: &'static str,
        model: &str,
        request: &GenerateRequest,
        streams: bool,
    ) {
        self.note(|notes| {
            notes.asks(operation, model);
            notes.streams = streams;
            notes.say("gen_ai.request.stream", streams);
            let is_json = matches!(request.grammar, Some(Grammar::JsonObject | Grammar::JsonSchema(_)));
            notes.say("gen_ai.output.type", if is_json { "json" } else { "text" });
            if let Some(most) = request.max_tokens {
                notes.say("gen_ai.request.max_tokens", most);
            }
            if request.n > 1 {
                notes.say("gen_ai.request.choice.count", request.n);
            }
            notes.samples(&request.sampling);
            notes.say("dept.prompts", request.prompts.len());
            notes.say("dept.priority", i64::from(request.priority));
        });
    }

    /// The request wants labels scored by `model`.
    pub(super) fn classifies(&self, model: &str, request: &ClassifyRequest) {
        self.note(|notes| {
            notes.asks("classify", model);
            notes.say("dept.prompts", request.prompts.len());
            notes.say("dept.priority", i64::from(request.priority));
        });
    }

    /// What answers.
    pub(super) fn answers(&self, model: &str, adapter: Option<&AdapterLease>) {
        self.note(|notes| {
            notes.say("gen_ai.response.model", model.to_owned());
            if let Some(adapter) = adapter {
                notes.say("dept.adapter.name", adapter.name().to_string());
                notes.say("dept.adapter.version", adapter.version().to_string());
            }
        });
    }

    /// An adapter that was not in memory has been loaded since `began`, or could not be.
    pub(super) fn loaded(&self, found: &Found, began: Instant, is_loaded: bool) {
        let ended = Instant::now();
        let attributes = vec![
            ("dept.adapter.name".into(), found.name.to_string().into()),
            ("dept.adapter.version".into(), found.version.version.to_string().into()),
            ("dept.adapter.bytes".into(), found.version.bytes.into()),
        ];
        let part = self.part("load_adapter", (began, ended), attributes);
        let error = (!is_loaded).then(|| "it can't be loaded: the log says why".to_owned());
        self.note(|notes| notes.parts.push(Span { error, ..part }));
    }

    /// A response has this status.
    pub(super) fn responds(&self, status: u16) {
        self.note(|notes| notes.status = status);
    }

    /// The first token of the request has come.
    fn first_token(&self) {
        let since = self.clock.began().elapsed();
        self.note(|notes| notes.first_token = Some(since));
    }

    /// A sequence that was submitted at `submitted` has ended, regularly or not.
    fn sequence(&self, place: Place, submitted: Instant, timings: &Timings, end: Option<&Completion>) {
        self.note(|notes| {
            notes.sequences += 1;
            if let Some(end) = end {
                notes.count(place, end);
            }
            if notes.sequences <= SEQUENCES {
                let parts = self.phases(place, submitted, timings, end);
                notes.parts.extend(parts);
            }
        });
    }

    /// Queue, prefill and decode of a sequence; what took no time is left out.
    fn phases(
        &self,
        place: Place,
        submitted: Instant,
        timings: &Timings,
        end: Option<&Completion>,
    ) -> Vec<Span> {
        let mut began = submitted;
        let mut parts = Vec::with_capacity(3);
        for (name, time) in
            [("queue", timings.queue), ("prefill", timings.prefill), ("decode", timings.decode)]
        {
            let ended = began + time;
            if !time.is_zero() {
                let mut attributes: Vec<Attribute> = vec![
                    ("dept.prompt".into(), place.result.into()),
                    ("dept.choice".into(), place.choice.into()),
                ];
                match (name, end.map(|end| end.usage)) {
                    ("prefill", Some(usage)) => attributes.extend([
                        ("gen_ai.usage.input_tokens".into(), usage.prompt_tokens.into()),
                        ("gen_ai.usage.cache_read.input_tokens".into(), usage.cached_tokens.into()),
                        ("dept.usage.virtual_tokens".into(), usage.virtual_tokens.into()),
                    ]),
                    ("decode", Some(usage)) => {
                        attributes
                            .push(("gen_ai.usage.output_tokens".into(), usage.completion_tokens.into()));
                    }
                    _ => {}
                }
                parts.push(self.part(name, (began, ended), attributes));
            }
            began = ended;
        }
        parts
    }

    /// A part of the request.
    fn part(
        &self,
        name: &'static str,
        (began, ended): (Instant, Instant),
        attributes: Vec<Attribute>,
    ) -> Span {
        Span {
            trace: self.context.trace,
            id: SpanId::random(),
            parent: Some(self.context.span),
            state: String::new(),
            name: name.into(),
            kind: SpanKind::Internal,
            began: self.clock.nanos(began),
            ended: self.clock.nanos(ended),
            attributes,
            error: None,
        }
    }

    /// The request has ended: its spans go their way.
    pub(super) fn end(&self, end: &End<'_>) {
        if !self.is_recorded() {
            return;
        }
        let mut notes = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner));
        let row = ErrorCode::table().iter().find(|row| row.name == end.outcome);
        let (caller, parts) = (self.caller.as_ref(), std::mem::take(&mut notes.parts));
        let mut spans = Vec::with_capacity(1 + parts.len());
        spans.push(Span {
            trace: self.context.trace,
            id: self.context.span,
            parent: caller.map(|caller| caller.context.span),
            state: caller.map_or_else(String::new, |caller| caller.state.clone()),
            name: notes.name(end.endpoint),
            kind: SpanKind::Server,
            began: self.clock.nanos(self.clock.began()),
            ended: self.clock.nanos(Instant::now()),
            // What is the client's fault is none of the server's spans'.
            error: row.filter(|row| row.status >= 500).map(|row| row.name.to_owned()),
            attributes: notes.closing(end),
        });
        spans.extend(parts);
        self.traces.send(spans);
    }

    fn note(&self, take: impl FnOnce(&mut Notes)) {
        take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
