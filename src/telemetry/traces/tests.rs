//! Spans on their way to a collector that reads them with OpenTelemetry's own types.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{KeyValue, any_value::Value as Any},
};
use prost::Message;
use reqwest::header;
use serde_json::{Value as Json, json};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

use super::*;
use crate::config::choose_crypto;

/// A pace at which a test need not wait.
pub(crate) const QUICK: Pace = Pace { delay: Duration::from_millis(5), first_wait: Duration::from_millis(5) };

/// A span as a collector sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub trace: String,
    pub id: String,
    /// Empty where there is none.
    pub parent: String,
    pub state: String,
    pub name: String,
    pub kind: i32,
    pub times: (u64, u64),
    pub attributes: BTreeMap<String, Json>,
    /// The code and the message.
    pub status: Option<(i32, String)>,
}

impl Seen {
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.times.1 - self.times.0)
    }
}

#[derive(Default)]
struct Log {
    bodies: Vec<Bytes>,
    headers: Vec<HeaderMap>,
    spans: Vec<Seen>,
    resource: BTreeMap<String, Json>,
    /// What it answers next; then it takes everything.
    answers: VecDeque<(StatusCode, Vec<u8>)>,
}

/// A collector on a port.
pub(crate) struct Station {
    pub url: reqwest::Url,
    log: Arc<(Mutex<Log>, Notify)>,
    served: JoinHandle<()>,
}

impl Drop for Station {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Station {
    pub async fn open() -> Self {
        Self::answering([]).await
    }

    /// One that first gives these answers.
    pub async fn answering(answers: impl IntoIterator<Item = (StatusCode, Vec<u8>)>) -> Self {
        let log: Arc<(Mutex<Log>, Notify)> = Arc::default();
        log.0.lock().unwrap().answers = answers.into_iter().collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap()).parse().unwrap();
        let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&log));
        let served = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, log, served }
    }

    /// What speaks to it.
    pub fn collector(&self) -> Collector {
        collector(self.url.clone())
    }

    /// All spans, once there are so many.
    pub async fn spans(&self, count: usize) -> Vec<Seen> {
        loop {
            let more = self.log.1.notified();
            let seen = self.log.0.lock().unwrap().spans.clone();
            if seen.len() >= count {
                assert_eq!(seen.len(), count, "{seen:#?}");
                return seen;
            }
            more.await;
        }
    }

    /// Everything that was sent.
    pub fn bytes(&self) -> Vec<u8> {
        self.log.0.lock().unwrap().bodies.concat()
    }
}

async fn take(State(log): State<Arc<(Mutex<Log>, Notify)>>, headers: HeaderMap, body: Bytes) -> Response {
    let message = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let mut kept = log.0.lock().unwrap();
    kept.headers.push(headers);
    let (status, answer) = kept.answers.pop_front().unwrap_or((StatusCode::OK, Vec::new()));
    if status.is_success() {
        kept.bodies.push(body);
        for resource in message.resource_spans {
            kept.resource = map(&resource.resource.unwrap().attributes);
            for scope in resource.scope_spans {
                assert_eq!(scope.scope.unwrap().name, "dept");
                kept.spans.extend(scope.spans.iter().map(seen));
            }
        }
    }
    drop(kept);
    log.1.notify_waiters();
    (status, answer).into_response()
}

fn seen(span: &opentelemetry_proto::tonic::trace::v1::Span) -> Seen {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Seen {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state.clone(),
        name: span.name.clone(),
        kind: span.kind,
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        attributes: map(&span.attributes),
        status: span.status.as_ref().map(|status| (status.code, status.message.clone())),
    }
}

fn map(attributes: &[KeyValue]) -> BTreeMap<String, Json> {
    let pair =
        |pair: &KeyValue| (pair.key.clone(), value(pair.value.as_ref().unwrap().value.as_ref().unwrap()));
    let map: BTreeMap<_, _> = attributes.iter().map(pair).collect();
    assert_eq!(map.len(), attributes.len(), "no attribute twice: {attributes:?}");
    map
}

fn value(any: &Any) -> Json {
    match any {
        Any::StringValue(text) => json!(text),
        Any::BoolValue(flag) => json!(flag),
        Any::IntValue(number) => json!(number),
        Any::DoubleValue(number) => json!(number),
        Any::ArrayValue(list) => list.values.iter().map(|any| value(any.value.as_ref().unwrap())).collect(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn collector(url: reqwest::Url) -> Collector {
    choose_crypto();
    let resource = vec![("service.name".to_owned(), "dept".to_owned())];
    Collector { client: reqwest::Client::new(), url, headers: HeaderMap::new(), resource }
}

fn span(traces: &Traces, name: &'static str) -> Span {
    let context = traces.place(None);
    let clock = Calendar::now();
    Span {
        trace: context.trace,
        id: context.span,
        parent: None,
        state: String::new(),
        name: name.into(),
        kind: SpanKind::Server,
        began: clock.nanos(clock.began()),
        ended: clock.nanos(clock.began() + Duration::from_millis(3)),
        attributes: Vec::new(),
        error: None,
    }
}

/// Spans that were sent and lost, once that is all of them.
async fn settled(metrics: &Metrics, all: u64) -> (u64, u64) {
    loop {
        let (sent, lost) = (metrics.trace_spans.sent.get(), metrics.trace_spans.lost.get());
        if sent + lost == all {
            return (sent, lost);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_span_arrives_as_it_was_written() {
    let station = Station::open().await;
    let mut collector = station.collector();
    collector.headers.insert(header::AUTHORIZATION, "Bearer k".parse().unwrap());
    let (traces, delivery) = start(collector, 1.0, QUICK, Arc::default()).unwrap();
    let parent = SpanId::random();
    let attributes: Vec<Attribute> = vec![
        ("text".into(), "é".into()),
        ("int".into(), 7_usize.into()),
        ("float".into(), 0.5.into()),
        ("flag".into(), true.into()),
        ("list".into(), Value::Texts(vec!["a".into(), "b".into()])),
    ];
    let root = span(&traces, "root");
    let part = Span {
        parent: Some(parent),
        state: "a=1".to_owned(),
        kind: SpanKind::Internal,
        attributes,
        error: Some("broken".to_owned()),
        ..span(&traces, "part")
    };
    traces.send(vec![root.clone(), part.clone()]);
    let seen = station.spans(2).await;
    assert_eq!(seen[0].trace, root.trace.to_string());
    assert_eq!(seen[0].id, root.id.to_string());
    assert_eq!((seen[0].name.as_str(), seen[0].kind, seen[0].parent.as_str()), ("root", 2, ""));
    assert_eq!((seen[0].duration(), seen[0].status.clone()), (Duration::from_millis(3), None));
    let since = Duration::from_nanos(seen[0].times.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now - since < Duration::from_secs(600), "it began now");
    assert_eq!(
        (seen[1].parent.clone(), seen[1].state.as_str(), seen[1].kind),
        (parent.to_string(), "a=1", 1)
    );
    assert_eq!(seen[1].status, Some((2, "broken".to_owned())));
    let expected = json!({"text": "é", "int": 7, "float": 0.5, "flag": true, "list": ["a", "b"]});
    assert_eq!(json!(seen[1].attributes), expected);
    delivery.finish(Duration::from_secs(60)).await;
    let log = station.log.0.lock().unwrap();
    assert_eq!(log.headers[0][header::CONTENT_TYPE], "application/x-protobuf");
    assert_eq!(log.headers[0][header::AUTHORIZATION], "Bearer k");
    assert_eq!(json!(log.resource), json!({"service.name": "dept"}));
}

#[tokio::test]
async fn what_is_not_taken_now_is_sent_again_and_what_never_will_be_is_lost() {
    let busy = (StatusCode::SERVICE_UNAVAILABLE, Vec::new());
    let refused = (StatusCode::BAD_REQUEST, Vec::new());
    let station = Station::answering([busy.clone(), busy, refused]).await;
    let metrics: Arc<Metrics> = Arc::default();
    let (traces, _delivery) = start(station.collector(), 1.0, QUICK, Arc::clone(&metrics)).unwrap();
    traces.send(vec![span(&traces, "kept")]);
    assert_eq!(settled(&metrics, 1).await, (0, 1), "two answers to wait, the third for good");
    traces.send(vec![span(&traces, "sent")]);
    assert_eq!(station.spans(1).await[0].name, "sent");
    assert_eq!(settled(&metrics, 2).await, (1, 1));
}

#[tokio::test]
async fn what_a_collector_takes_in_part_is_counted_so() {
    let partial = ExportTracePartialSuccess { rejected_spans: 2, error_message: "too many".to_owned() };
    let partial = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let station = Station::answering([(StatusCode::OK, partial)]).await;
    let metrics: Arc<Metrics> = Arc::default();
    let (traces, _delivery) = start(station.collector(), 1.0, QUICK, Arc::clone(&metrics)).unwrap();
    traces.send((0..3).map(|_| span(&traces, "one")).collect());
    assert_eq!(settled(&metrics, 3).await, (1, 2));
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_away() {
    // A port that nobody listens on any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let metrics: Arc<Metrics> = Arc::default();
    let slow = Pace { first_wait: Duration::from_secs(3600), ..QUICK };
    let url = format!("http://{gone}/v1/traces").parse().unwrap();
    let (traces, delivery) = start(collector(url), 1.0, slow, Arc::clone(&metrics)).unwrap();
    for _ in 0..5000 {
        traces.send(vec![span(&traces, "one")]);
    }
    let lost = metrics.trace_spans.lost.get();
    assert!((1..5000).contains(&lost), "the queue is full at some time, and not before: {lost}");
    delivery.finish(Duration::from_secs(60)).await;
    assert_eq!(settled(&metrics, 5000).await, (0, 5000), "the end does not wait for an hour");
}

#[tokio::test]
async fn the_end_delivers_what_is_queued() {
    let station = Station::open().await;
    let never = Pace { delay: Duration::from_secs(3600), ..QUICK };
    let (traces, delivery) = start(station.collector(), 1.0, never, Arc::default()).unwrap();
    for _ in 0..3 {
        traces.send(vec![span(&traces, "one")]);
    }
    delivery.finish(Duration::from_secs(60)).await;
    assert_eq!(station.spans(3).await.len(), 3);
    traces.send(vec![span(&traces, "late")]);
    assert_eq!(station.spans(3).await.len(), 3, "there is nobody any more");
}

#[tokio::test]
async fn a_collector_that_does_not_answer_is_not_waited_for_at_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap()).parse().unwrap();
    let (traces, delivery) = start(collector(url), 1.0, QUICK, Arc::default()).unwrap();
    traces.send(vec![span(&traces, "one")]);
    let _held = listener.accept().await.unwrap();
    let began = Instant::now();
    delivery.finish(Duration::from_millis(20)).await;
    assert!(began.elapsed() >= Duration::from_millis(20));
}

#[test]
fn a_caller_decides_for_its_own_trace() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (never, _delivery) =
            start(collector("http://127.0.0.1:1/".parse().unwrap()), 0.0, QUICK, Arc::default()).unwrap();
        let caller = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let place = never.place(Some(caller));
        assert!(place.sampled && place.trace == caller.trace && place.span != caller.span);
        assert!(!never.place(None).sampled);
        let (always, _delivery) =
            start(collector("http://127.0.0.1:1/".parse().unwrap()), 1.0, QUICK, Arc::default()).unwrap();
        assert!(!always.place(Some(TraceContext { sampled: false, ..caller })).sampled);
        assert!(always.place(None).sampled);
    });
}
