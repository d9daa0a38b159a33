//! Spans as OTLP tells them: the few messages of `opentelemetry/proto/collector/trace/v1/trace_service.proto` that a sender
//! of spans needs, by their field numbers (<https://opentelemetry.io/docs/specs/otlp/>). A test reads them with the
//! project's own types.

use std::borrow::Cow;

use prost::{Message, Oneof};

use super::span::{Attribute, Span, SpanKind, Value};

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<SpanMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    /// 1 internal, 2 server.
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    /// 2 error.
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Kind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Float(f64),
    #[prost(message, tag = "5")]
    List(ArrayValue),
}

#[derive(Clone, PartialEq, Message)]
struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// The body that tells `spans` of what `resource` says.
pub(super) fn request(resource: &[(String, String)], spans: Vec<Span>) -> Vec<u8> {
    let resource = resource.iter().map(|(key, value)| attribute((key.clone().into(), value.clone().into())));
    let scope = Scope { name: "dept".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let spans = spans.into_iter().map(SpanMessage::from).collect();
    let resource_spans = ResourceSpans {
        resource: Some(Resource { attributes: resource.collect() }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// How many spans the collector did not take, and why. What is no response of its kind took all of them.
pub(super) fn rejected(response: &[u8]) -> Option<(u64, String)> {
    let partial = ExportTraceServiceResponse::decode(response).ok()?.partial_success?;
    let rejected = u64::try_from(partial.rejected_spans).ok().filter(|&rejected| rejected > 0)?;
    Some((rejected, partial.error_message))
}

impl From<Span> for SpanMessage {
    fn from(span: Span) -> Self {
        Self {
            trace_id: span.trace.bytes().to_vec(),
            span_id: span.id.bytes().to_vec(),
            trace_state: span.state,
            parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.bytes().to_vec()),
            name: span.name.into_owned(),
            kind: match span.kind {
                SpanKind::Internal => 1,
                SpanKind::Server => 2,
            },
            start_time_unix_nano: span.began,
            end_time_unix_nano: span.ended,
            attributes: span.attributes.into_iter().map(attribute).collect(),
            status: span.error.map(|message| Status { message, code: 2 }),
        }
    }
}

fn attribute((key, value): Attribute) -> KeyValue {
    let text = |text: Cow<'static, str>| AnyValue { kind: Some(Kind::Text(text.into_owned())) };
    let value = match value {
        Value::Text(value) => text(value),
        Value::Int(value) => AnyValue { kind: Some(Kind::Int(value)) },
        Value::Float(value) => AnyValue { kind: Some(Kind::Float(value)) },
        Value::Bool(value) => AnyValue { kind: Some(Kind::Bool(value)) },
        Value::Texts(values) => {
            let values = values.into_iter().map(text).collect();
            AnyValue { kind: Some(Kind::List(ArrayValue { values })) }
        }
    };
    KeyValue { key: key.into_owned(), value: Some(value) }
}
