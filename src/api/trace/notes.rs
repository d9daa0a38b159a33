//! What is known of a request while it runs, and how it is said.

use std::{borrow::Cow, time::Duration};

use axum::{
    extract::Request,
    http::{Version, uri::Scheme},
};

use super::{End, SEQUENCES};
use crate::{
    api::{ErrorCode, Place, error::canonical},
    domain::{Completion, SamplingParams},
    telemetry::traces::{Attribute, Span, Value},
};

/// How the routes of gRPC begin.
const RPC: &str = "/dept.v1.";

/// What is known so far.
#[derive(Default)]
pub(super) struct Notes {
    /// The operation and the model that was asked for.
    name: Option<String>,
    pub attributes: Vec<Attribute>,
    pub parts: Vec<Span>,
    pub status: u16,
    /// When the first token came, where the answer is streamed.
    pub first_token: Option<Duration>,
    pub streams: bool,
    pub sequences: usize,
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

impl Notes {
    pub fn say(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name.into(), value.into()));
    }

    pub fn asks(&mut self, operation: &'static str, model: &str) {
        self.name = Some(format!("{operation} {model}"));
        self.say("gen_ai.operation.name", operation);
        self.say("gen_ai.provider.name", "dept");
        self.say("gen_ai.request.model", model.to_owned());
    }

    pub fn samples(&mut self, sampling: &SamplingParams) {
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
    pub fn count(&mut self, place: Place, end: &Completion) {
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
    pub fn name(&self, endpoint: &str) -> Cow<'static, str> {
        let method = self.attributes.iter().find(|(name, _)| name == "http.request.method");
        match (&self.name, method) {
            (Some(name), _) => name.clone().into(),
            (None, Some((_, Value::Text(method)))) => format!("{method} {endpoint}").into(),
            (None, _) => endpoint.trim_start_matches('/').to_owned().into(),
        }
    }

    /// All attributes, with what is known at the end.
    pub fn closing(mut self, end: &End<'_>) -> Vec<Attribute> {
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
pub(super) fn request_attributes(request: &Request) -> Vec<Attribute> {
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
    let mut attributes = vec![
        ("http.request.method".into(), request.method().to_string().into()),
        ("url.path".into(), path.to_owned().into()),
        ("network.protocol.version".into(), version.into()),
    ];
    if let Some(scheme) = request.extensions().get::<Scheme>() {
        attributes.push(("url.scheme".into(), scheme.to_string().into()));
    }
    attributes
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
