//! The spans of a request: one of its own, and one for each thing that it waited for.
//!
//! Names and attributes are those of OpenTelemetry's conventions for HTTP, RPC and generative models; what those have no name
//! for begins with `dept.`. Texts are in none of them: neither prompts nor answers, labels or stop strings.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    extract::Request,
    http::{HeaderName, Version},
};
use futures::{Stream, StreamExt};

use super::{Accepted, ErrorCode, Events, Place, error::canonical, frame::account::Account};
use crate::{
    adapter::{AdapterLease, catalogue::Found},
    domain::{ClassifyRequest, Completion, GenerateRequest, Grammar, SamplingParams, Timings, TokenEvent},
    telemetry::traces::{
        Attribute, Calendar, Caller, Span, SpanId, SpanKind, TraceContext, TraceId, Traces, Value,
    },
};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Sequences of a request that have spans of their own; a request can have hundreds.
const SEQUENCES: usize = 8;

/// How the routes of gRPC begin.
const RPC: &str = "/dept.v1.";

/// The trace of one request. One that is not recorded has it too, for its ids.
pub struct Trace {
    traces: Traces,
    /// The place of the request's own span.
    context: TraceContext,
    caller: Option<Caller>,
    clock: Calendar,
    notes: Mutex<Notes>,
}

/// What is known so far.
#[derive(Default)]
struct Notes {
    /// The operation and the model that was asked for.
    name: Option<String>,
    attributes: Vec<Attribute>,
    parts: Vec<Span>,
    status: u16,
    /// When the first token came, where the answer is streamed.
    first_token: Option<Duration>,
    streams: bool,
    sequences: usize,
    reasons: Vec<Cow<'static, str>>,
    tokens: Tokens,
}

/// Tokens of all sequences; a prompt counts once, however many choices it has.
#[derive(Default)]
struct Tokens {
    prompt: usize,
    virtual_: usize,
    cached: usize,
    generated: usize,
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

impl Notes {
    fn say(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name.into(), value.into()));
    }

    fn asks(&mut self, operation: &'static str, model: &str) {
        self.name = Some(format!("{operation} {model}"));
        self.say("gen_ai.operation.name", operation);
        self.say("gen_ai.provider.name", "dept");
        self.say("gen_ai.request.model", model.to_owned());
    }

    fn samples(&mut self, sampling: &SamplingParams) {
        self.say("gen_ai.request.temperature", sampling.temperature);
        self.say("gen_ai.request.top_p", sampling.top_p);
        self.say("gen_ai.request.top_k", f64::from(sampling.top_k));
        self.say("gen_ai.request.presence_penalty", sampling.presence_penalty);
        self.say("gen_ai.request.frequency_penalty", sampling.frequency_penalty);
        if let Some(seed) = sampling.seed.and_then(|seed| i64::try_from(seed).ok()) {
            self.say("gen_ai.request.seed", seed);
        }
    }

    /// Takes the figures of a sequence up.
    fn count(&mut self, place: Place, end: &Completion) {
        let (tokens, usage) = (&mut self.tokens, end.usage);
        if place.choice == 0 {
            tokens.prompt += usage.prompt_tokens;
            tokens.virtual_ += usage.virtual_tokens;
            tokens.cached += usage.cached_tokens;
        }
        tokens.generated += usage.completion_tokens;
        if self.reasons.len() < SEQUENCES {
            self.reasons.push(end.reason.as_str().into());
        }
    }

    /// The span's name: what the model did, or the route where there was none.
    fn name(&self, endpoint: &str) -> Cow<'static, str> {
        let method = self.attributes.iter().find(|(name, _)| name == "http.request.method");
        match (&self.name, method) {
            (Some(name), _) => name.clone().into(),
            (None, Some((_, Value::Text(method)))) => format!("{method} {endpoint}").into(),
            (None, _) => endpoint.trim_start_matches('/').to_owned().into(),
        }
    }

    /// All attributes, with what is known at the end.
    fn closing(mut self, end: &End<'_>) -> Vec<Attribute> {
        if end.endpoint.starts_with(RPC) {
            self.say("rpc.response.status_code", grpc_status(end.outcome));
        } else {
            self.say("http.route", end.endpoint.to_owned());
            if self.status > 0 {
                self.say("http.response.status_code", u32::from(self.status));
            }
        }
        if end.outcome != "ok" {
            self.say("error.type", end.outcome);
        }
        self.say("dept.request.id", end.id.to_owned());
        if let Some(tenant) = end.tenant {
            self.say("dept.tenant", tenant.to_owned());
        }
        if let Some(first) = self.first_token.filter(|_| self.streams) {
            self.say("gen_ai.response.time_to_first_chunk", first.as_secs_f64());
        }
        if self.sequences > 0 {
            let Tokens { prompt, virtual_, cached, generated } = self.tokens;
            self.say("dept.sequences", self.sequences);
            let reasons = std::mem::take(&mut self.reasons);
            self.say("gen_ai.response.finish_reasons", Value::Texts(reasons));
            self.say("gen_ai.usage.input_tokens", prompt);
            self.say("gen_ai.usage.output_tokens", generated);
            self.say("gen_ai.usage.cache_read.input_tokens", cached);
            self.say("dept.usage.virtual_tokens", virtual_);
        }
        self.attributes
    }
}

/// What a request's head says, without its query and its headers.
fn request_attributes(request: &Request) -> Vec<Attribute> {
    let path = request.uri().path();
    if path.starts_with(RPC) {
        let method = path.trim_start_matches('/').to_owned();
        return vec![("rpc.system.name".into(), "grpc".into()), ("rpc.method".into(), method.into())];
    }
    let version = match request.version() {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    vec![
        ("http.request.method".into(), request.method().to_string().into()),
        ("url.path".into(), path.to_owned().into()),
        ("network.protocol.version".into(), version.into()),
    ]
}

/// gRPC's word for an outcome.
fn grpc_status(outcome: &str) -> String {
    let row = ErrorCode::table().iter().find(|row| row.name == outcome);
    match (row, outcome) {
        (Some(row), _) => canonical(row.grpc),
        (None, "cancelled") => "CANCELLED".to_owned(),
        (None, _) => "OK".to_owned(),
    }
}

impl Accepted {
    /// The same, whose times become spans of the request's trace where that is recorded.
    pub(super) fn traced(self, account: &Arc<Account>) -> Self {
        let Some(trace) = account.trace() else { return self };
        trace.answers(&self.model.name, self.adapter.as_ref());
        let events = traced(self.events, account, self.submitted);
        Self { events, ..self }
    }
}

/// `events`, which leave their times in the trace of `account` as they pass.
pub(super) fn traced(events: Events, account: &Arc<Account>, submitted: Instant) -> Events {
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
