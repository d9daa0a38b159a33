//! What a collector is told of HTTP requests.

use std::{collections::BTreeMap, time::Duration};

use axum::{Router, body::Body, http::Request};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::kit::{BAD, GOOD, Stage, ask, fail, get, post, say};
use crate::{
    api::http::Origins,
    domain::{SequenceError, TokenEvent},
    engine::Arrival,
    telemetry::traces::{
        Delivery, start,
        tests::{QUICK, Seen, Station},
    },
};

pub const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A stage whose requests are traced.
pub async fn traced(mut stage: Stage, share: f64) -> (Stage, Station, Delivery) {
    let station = Station::open().await;
    let (traces, delivery) = start(station.collector(), share, QUICK, stage.metrics()).unwrap();
    stage.options.traces = Some(traces);
    (stage, station, delivery)
}

async fn server(script: impl Fn(Arrival) + Send + 'static) -> (Router, Station, Delivery) {
    let (stage, station, delivery) = traced(Stage::new(), 1.0).await;
    (stage.with_engine(script), station, delivery)
}

fn called(path: &str, body: Value) -> Request<Body> {
    let mut request = post(path, body.to_string());
    request.headers_mut().insert("traceparent", CALLER.parse().unwrap());
    request.headers_mut().insert("tracestate", "vendor=1".parse().unwrap());
    request.headers_mut().insert("x-request-id", "r-1".parse().unwrap());
    request
}

/// The request's own span, and its parts by name.
#[track_caller]
pub fn family(spans: &[Seen]) -> (&Seen, BTreeMap<&str, &Seen>) {
    let (own, parts): (Vec<&Seen>, Vec<&Seen>) = spans.iter().partition(|span| span.kind == 2);
    let [own] = own[..] else { panic!("one span a request: {spans:#?}") };
    let mut names = BTreeMap::new();
    for part in parts {
        assert_eq!((&part.parent, &part.trace, part.kind), (&own.id, &own.trace, 1), "{part:#?}");
        assert_ne!(part.id, own.id);
        assert!(names.insert(part.name.as_str(), part).is_none(), "{spans:#?}");
    }
    (own, names)
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[tokio::test]
async fn a_request_is_one_span_with_a_part_for_each_thing_that_it_waited_for() {
    let (app, station, _delivery) = server(|arrival| say(&arrival, &[(GOOD, "good")], "")).await;
    let body = json!({"adapter": "sst2", "prompt": "sentence: a film", "max_tokens": 3, "temperature": 0.5,
                      "seed": 7, "stop": ["film"], "user": "bad"});
    let answer = ask(&app, called("/v1/generate", body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let spans = station.spans(4).await;
    let (own, parts) = family(&spans);
    // The place that the answer names is the request's own span, in the caller's trace.
    assert_eq!(answer.header("traceparent"), Some(format!("00-{TRACE}-{}-01", own.id).as_str()));
    assert_eq!((own.trace.as_str(), own.parent.as_str()), (TRACE, "00f067aa0ba902b7"));
    assert_eq!(
        (own.name.as_str(), own.state.as_str(), &own.status),
        ("text_completion sst2", "vendor=1", &None)
    );
    let version = answer.json()["adapter_version"].clone();
    let expected = json!({
        "http.request.method": "POST", "http.route": "/v1/generate", "url.path": "/v1/generate",
        "network.protocol.version": "1.1", "http.response.status_code": 200,
        "gen_ai.operation.name": "text_completion", "gen_ai.provider.name": "dept", "gen_ai.output.type": "text",
        "gen_ai.request.model": "sst2", "gen_ai.response.model": "tiny", "gen_ai.request.stream": false,
        "gen_ai.request.max_tokens": 3, "gen_ai.request.temperature": 0.5, "gen_ai.request.seed": 7,
        "gen_ai.request.top_p": 1.0, "gen_ai.request.top_k": 0.0, "gen_ai.request.presence_penalty": 0.0,
        "gen_ai.request.frequency_penalty": 0.0, "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 4, "gen_ai.usage.output_tokens": 1,
        "gen_ai.usage.cache_read.input_tokens": 0, "dept.usage.virtual_tokens": 2,
        "dept.adapter.name": "sst2", "dept.adapter.version": version, "dept.prompts": 1, "dept.sequences": 1,
        "dept.priority": 0, "dept.request.id": "r-1", "dept.tenant": "default",
    });
    assert_eq!(json!(own.attributes), expected);

    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), ["decode", "prefill", "queue"]);
    assert_eq!((parts["queue"].duration(), parts["prefill"].duration()), (ms(1), ms(2)));
    assert_eq!(parts["decode"].duration(), ms(4));
    assert_eq!(parts["queue"].times.1, parts["prefill"].times.0);
    assert_eq!(parts["prefill"].times.1, parts["decode"].times.0);
    assert!(parts["queue"].times.0 >= own.times.0);
    assert_eq!(json!(parts["queue"].attributes), json!({"dept.prompt": 0, "dept.choice": 0}));
    assert_eq!(parts["prefill"].attributes["gen_ai.usage.input_tokens"], 4);
    assert_eq!(parts["prefill"].attributes["dept.usage.virtual_tokens"], 2);
    assert_eq!(parts["decode"].attributes["gen_ai.usage.output_tokens"], 1);

    let said = String::from_utf8_lossy(&station.bytes()).into_owned();
    for text in ["sentence", "film", "good", "positive", "bad"] {
        assert!(!said.contains(text), "a trace tells {text:?}: {said}");
    }
}

#[tokio::test]
async fn the_other_routes_of_models_have_their_operations() {
    let (app, station, _delivery) = server(|arrival| say(&arrival, &[(GOOD, "good")], "")).await;
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": "a film"}]});
    assert_eq!(ask(&app, called("/v1/chat/completions", chat)).await.status, 200);
    let spans = station.spans(4).await;
    let (own, _) = family(&spans);
    assert_eq!(
        (own.name.as_str(), &own.attributes["http.route"]),
        ("chat tiny", &json!("/v1/chat/completions"))
    );
    assert_eq!(own.attributes["gen_ai.response.model"], "tiny");
    assert!(!own.attributes.contains_key("dept.adapter.name"), "{own:#?}");

    let text = json!({"model": "sst2", "prompt": ["a", "a film"], "n": 2});
    assert_eq!(ask(&app, called("/v1/completions", text)).await.status, 200);
    let spans = &station.spans(4 + 13).await[4..];
    let own = spans.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!(own.name, "text_completion sst2");
    assert_eq!(own.attributes["gen_ai.request.choice.count"], 2);
    assert_eq!((&own.attributes["dept.sequences"], &own.attributes["dept.prompts"]), (&json!(4), &json!(2)));
    assert_eq!(own.attributes["gen_ai.usage.input_tokens"], 2 + 3, "a prompt counts once");
    assert_eq!(own.attributes["gen_ai.usage.output_tokens"], 4);
    let places: Vec<_> =
        spans.iter().filter(|span| span.name == "queue").map(|span| json!(span.attributes)).collect();
    for (prompt, choice) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert!(places.contains(&json!({"dept.prompt": prompt, "dept.choice": choice})), "{places:?}");
    }
}

#[tokio::test]
async fn labels_are_scored_under_a_name_of_their_own_and_not_told() {
    let (app, station, _delivery) = server(|arrival| say(&arrival, &[], "")).await;
    let body = json!({"adapter": "sst2", "prompt": "sentence: film", "labels": ["good", "bad"]});
    assert_eq!(ask(&app, called("/v1/classify", body)).await.status, 200);
    let spans = station.spans(7).await;
    let own = spans.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!((own.name.as_str(), &own.attributes["dept.sequences"]), ("classify sst2", &json!(2)));
    assert_eq!(own.attributes["gen_ai.usage.output_tokens"], 0);
    let said = String::from_utf8_lossy(&station.bytes()).into_owned();
    assert!(!said.contains("good") && !said.contains("bad"), "{said}");
}

#[tokio::test]
async fn a_stream_ends_its_span_when_it_ends_and_one_that_is_left_says_so() {
    let (app, station, _delivery) =
        server(|arrival| say(&arrival, &[(GOOD, "good"), (BAD, "bad")], "")).await;
    let body = json!({"prompt": "a", "stream": true});
    assert_eq!(ask(&app, called("/v1/generate", body.clone())).await.status, 200);
    let spans = station.spans(4).await;
    let (own, _) = family(&spans);
    assert_eq!(own.name, "text_completion tiny");
    assert_eq!(own.attributes["gen_ai.request.stream"], true);
    let first = own.attributes["gen_ai.response.time_to_first_chunk"].as_f64().unwrap();
    assert!(first > 0.0 && first <= own.duration().as_secs_f64(), "{first}");
    assert!(!own.attributes.contains_key("error.type"));

    // Its client reads the first token and goes.
    let (app, station, _delivery) = server(|arrival| {
        let token = super::kit::token(&arrival, GOOD, "good");
        let _ = arrival.events.send(TokenEvent::Token(token));
        std::mem::forget(arrival);
    })
    .await;
    let response = app.oneshot(called("/v1/generate", body)).await.unwrap();
    let mut stream = response.into_body().into_data_stream();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    let spans = station.spans(1).await;
    assert_eq!(spans[0].attributes["error.type"], "cancelled");
    assert_eq!((&spans[0].attributes["http.response.status_code"], &spans[0].status), (&json!(200), &None));
}

#[tokio::test]
async fn whose_fault_a_failure_is_can_be_seen() {
    let late = SequenceError::DeadlineExceeded(ms(5));
    let (app, station, _delivery) = server(move |arrival| fail(&arrival, late.clone())).await;
    assert_eq!(ask(&app, called("/v1/generate", json!({"prompt": "a", "timeout_ms": 5}))).await.status, 504);
    let spans = station.spans(4).await;
    let (own, parts) = family(&spans);
    assert_eq!(own.attributes["error.type"], "deadline_exceeded");
    assert_eq!(own.attributes["http.response.status_code"], 504);
    assert_eq!(own.status, Some((2, "deadline_exceeded".to_owned())));
    assert_eq!(parts["prefill"].duration(), ms(2), "where its time went is told all the same");

    let (app, station, _delivery) = server(|arrival| say(&arrival, &[], "")).await;
    let cases = [
        (json!({"adapter": "nope", "prompt": "a"}), "text_completion nope", 404, "adapter_not_found"),
        (json!({"prompt": "a", "top_q": 1}), "POST /v1/generate", 400, "invalid_request"),
    ];
    for (at, (body, name, status, code)) in cases.into_iter().enumerate() {
        assert_eq!(ask(&app, called("/v1/generate", body)).await.status, status);
        let own = &station.spans(at + 1).await[at];
        assert_eq!(
            (own.name.as_str(), &own.status),
            (name, &None),
            "a client's fault is no error of the server's"
        );
        assert_eq!(own.attributes["http.response.status_code"], status);
        assert_eq!(own.attributes["error.type"], code);
    }
    let odd = json!({"model": "tell me a secret", "prompt": "a"});
    assert_eq!(ask(&app, called("/v1/completions", odd)).await.status, 404);
    assert_eq!(station.spans(3).await[2].name, "text_completion _other", "what is no name is not told");
}

#[tokio::test]
async fn what_is_not_a_clients_work_is_not_traced() {
    let (app, station, _delivery) = server(|arrival| say(&arrival, &[], "")).await;
    for path in ["/health/live", "/health/ready", "/openapi.json", "/", "/v1/nothing"] {
        let mut request = get(path);
        request.headers_mut().insert("traceparent", CALLER.parse().unwrap());
        assert_eq!(ask(&app, request).await.header("traceparent"), None, "{path}");
    }
    let answer = ask(&app, get("/v1/adapters/sst2")).await;
    let spans = station.spans(1).await;
    let (own, _) = family(&spans);
    assert_eq!((own.name.as_str(), own.parent.as_str()), ("GET /v1/adapters/{name}", ""));
    assert_eq!(own.attributes["url.path"], "/v1/adapters/sst2");
    assert!(answer.header("traceparent").unwrap().contains(&own.trace));
}

#[tokio::test]
async fn what_a_caller_does_not_record_is_passed_on_and_not_recorded() {
    let (app, station, _delivery) = server(|arrival| say(&arrival, &[], "")).await;
    let mut request = called("/v1/generate", json!({"prompt": "a"}));
    request.headers_mut().insert("traceparent", CALLER.replace("-01", "-00").parse().unwrap());
    let answer = ask(&app, request).await;
    let place = answer.header("traceparent").unwrap();
    assert!(place.starts_with(&format!("00-{TRACE}-")) && place.ends_with("-00"), "{place}");
    // Nothing of it comes before what comes after it.
    assert_eq!(ask(&app, get("/v1/adapters")).await.status, 200);
    assert_eq!(station.spans(1).await[0].name, "GET /v1/adapters");

    let mut bad = called("/v1/generate", json!({"prompt": "a"}));
    bad.headers_mut().insert("traceparent", "00-nonsense".parse().unwrap());
    let place = ask(&app, bad).await.header("traceparent").unwrap().to_owned();
    assert!(!place.contains(TRACE) && place.ends_with("-01"), "a trace of its own: {place}");

    let (stage, _station, _delivery) = traced(Stage::new(), 0.0).await;
    let app = stage.with_engine(|arrival| say(&arrival, &[], ""));
    let place = ask(&app, get("/v1/adapters")).await.header("traceparent").unwrap().to_owned();
    assert!(place.ends_with("-00"), "{place}");
}

#[tokio::test]
async fn a_server_that_does_not_trace_says_nothing_of_it() {
    let answer = ask(&super::kit::server(), called("/v1/generate", json!({"prompt": "a"}))).await;
    assert_eq!((answer.status.as_u16(), answer.header("traceparent")), (200, None));
}

#[tokio::test]
async fn pages_that_may_ask_may_trace() {
    let mut stage = Stage::new();
    stage.options.origins = Origins::new(["https://app.example".to_owned()]);
    let (app, _inbox) = stage.quiet();
    let request = Request::options("/v1/generate")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "traceparent,tracestate");
    let answer = ask(&app, request.body(Body::empty()).unwrap()).await;
    let allowed = answer.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("traceparent") && allowed.contains("tracestate"), "{allowed}");
}
