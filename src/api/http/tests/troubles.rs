//! What goes wrong around the body: headers, time, load, faults.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, header},
    routing,
};
use futures::{StreamExt, stream};
use serde_json::json;
use tower::ServiceExt;

use super::kit::{Answer, QUEUE, Stage, ask, fail, generate, get, post, server};
use crate::{
    api::{
        Service, State,
        http::{Frame, Hosts, Origins, dressed, failure::written},
    },
    domain::SequenceError,
    engine::Command,
    telemetry::{PinFault, StoreFault, StoreWork},
};

fn found(answer: &Answer) -> (u16, String) {
    let (status, code, ..) = answer.error();
    (status, code)
}

#[tokio::test]
async fn only_json_is_read() {
    let app = server();
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("json")] {
        let mut request = Request::post("/v1/generate");
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let answer = ask(&app, request.body(Body::from(r#"{"prompt": "a"}"#)).unwrap()).await;
        assert_eq!(found(&answer), (415, "unsupported_media_type".into()), "{kind:?}");
    }
    for kind in
        ["application/json; charset=latin1", "application/json;charset=utf-16", "application/json; charset="]
    {
        let request = Request::post("/v1/generate").header(header::CONTENT_TYPE, kind);
        let answer = ask(&app, request.body(Body::from(r#"{"prompt": "a"}"#)).unwrap()).await;
        assert_eq!(found(&answer), (415, "unsupported_media_type".into()), "{kind}");
    }
    for encoding in ["gzip", "br", "identity, gzip", "deflate", ""] {
        let mut request = post("/v1/generate", r#"{"prompt": "a"}"#);
        request.headers_mut().insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        let error = ask(&app, request).await.error();
        assert_eq!((error.0, error.2.as_str()), (415, Some("content-encoding")), "{encoding}");
    }
    let mut plain = post("/v1/generate", r#"{"prompt": "a"}"#);
    plain.headers_mut().insert(header::CONTENT_ENCODING, "Identity".parse().unwrap());
    assert_eq!(ask(&app, plain).await.status, 200);
    for kind in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json;charset=\"UTF-8\"; q=1",
        "application/vnd.x+json",
    ] {
        let request = Request::post("/v1/generate").header(header::CONTENT_TYPE, kind);
        let answer = ask(&app, request.body(Body::from(r#"{"prompt": "a"}"#)).unwrap()).await;
        assert_eq!(answer.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn a_large_body_is_refused_with_and_without_its_length() {
    let mut stage = Stage::new();
    stage.options.max_body_bytes = 64;
    let (app, _inbox) = stage.quiet();
    let large = json!({"prompt": "a".repeat(64)}).to_string();
    let mut declared = post("/v1/generate", Body::empty());
    declared.headers_mut().insert(header::CONTENT_LENGTH, 65.into());
    assert_eq!(found(&ask(&app, declared).await), (413, "too_large".into()));
    let chunks = large
        .into_bytes()
        .chunks(7)
        .map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c)))
        .collect::<Vec<_>>();
    let answer = ask(&app, post("/v1/generate", Body::from_stream(stream::iter(chunks)))).await;
    assert_eq!(found(&answer), (413, "too_large".into()));
    assert!(answer.error().3.contains("over 64 bytes"));
}

#[tokio::test]
async fn a_slow_body_and_a_broken_one_are_told() {
    let mut stage = Stage::new();
    stage.options.body_timeout = Duration::from_millis(1);
    let (app, _inbox) = stage.quiet();
    let start = stream::iter([Ok::<_, std::io::Error>(Bytes::from("{"))]);
    let stalled = Body::from_stream(start.chain(stream::pending()));
    assert_eq!(found(&ask(&app, post("/v1/generate", stalled)).await), (408, "request_timeout".into()));
    let broken = Body::from_stream(stream::iter([Err::<Bytes, _>(std::io::Error::other("reset"))]));
    assert_eq!(found(&ask(&app, post("/v1/generate", broken)).await), (400, "invalid_request".into()));
}

#[tokio::test]
async fn unknown_paths_and_methods_have_the_same_shape() {
    let app = server();
    let answer = ask(&app, get("/v1/nothing")).await;
    assert_eq!(found(&answer), (404, "not_found".into()));
    assert!(answer.error().3.contains("/v1/nothing"));
    let answer = ask(&app, get("/v1/generate")).await;
    assert_eq!(found(&answer), (405, "method_not_allowed".into()));
    assert_eq!(answer.header("allow"), Some("POST"));
    assert_eq!(found(&ask(&app, get("/v1/adapters/Nope")).await), (400, "invalid_request".into()));
    assert_eq!(found(&ask(&app, get("/v1/adapters/%ff")).await).0, 400);
    assert_eq!(found(&ask(&app, get("/v1/adapters/nope")).await), (404, "adapter_not_found".into()));
    for query in ["limit=0", "limit=1001", "limit=x", "page=1"] {
        assert_eq!(found(&ask(&app, get(&format!("/v1/adapters?{query}"))).await).0, 400, "{query}");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let stage = Stage::new();
    let metrics = stage.metrics();
    let (app, _inbox) = stage.quiet();
    let hold = app.clone();
    let body = json!({"prompt": "a", "n": QUEUE, "stream": true});
    let _held = hold.oneshot(post("/v1/generate", body.to_string())).await.unwrap();
    let answer = generate(&app, json!({"prompt": "a"})).await;
    assert_eq!(found(&answer), (429, "overloaded".into()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.error().3.contains("4 sequences of"));
    assert!(metrics.render().contains(r#"dept_rejected_total{reason="overloaded"} 1"#));
}

#[tokio::test]
async fn one_request_too_many_is_refused_and_health_is_not() {
    let mut stage = Stage::new();
    stage.options.max_requests = 1;
    let (app, inbox) = stage.quiet();
    let held = tokio::spawn(app.clone().oneshot(post("/v1/generate", r#"{"prompt": "a"}"#)));
    let command = tokio::task::spawn_blocking(move || inbox.recv().unwrap()).await.unwrap();
    assert_eq!(found(&ask(&app, get("/v1/adapters")).await), (429, "overloaded".into()));
    assert_eq!(ask(&app, get("/health/ready")).await.status, 200);
    drop(command);
    assert_eq!(held.await.unwrap().unwrap().status(), 500);
    assert_eq!(ask(&app, get("/v1/adapters")).await.status, 200);
}

#[tokio::test]
async fn before_the_model_and_after_the_signal_nothing_is_taken() {
    let stage = Stage::new();
    let readiness = stage.service.readiness.clone();
    let (app, inbox) = stage.quiet();
    for (state, code) in [(State::Starting, "not_ready"), (State::Draining, "draining")] {
        readiness.set(state);
        let answer = generate(&app, json!({"prompt": "a"})).await;
        assert_eq!(found(&answer), (503, code.into()));
        assert!(answer.header("retry-after").is_some());
        assert_eq!(found(&ask(&app, get("/health/ready")).await), (503, code.into()));
        assert_eq!(ask(&app, get("/health/live")).await.status, 200);
    }
    readiness.set(State::Ready);
    assert_eq!(ask(&app, get("/health/ready")).await.status, 200);
    drop(inbox);
    assert_eq!(found(&generate(&app, json!({"prompt": "a"})).await), (503, "not_ready".into()));
}

#[tokio::test]
async fn a_store_that_fails_is_told_and_the_server_is_ready_all_the_same() {
    let stage = Stage::new();
    let (metrics, readiness) = (stage.metrics(), stage.service.readiness.clone());
    let (app, _inbox) = stage.quiet();
    assert_eq!(ask(&app, get("/health/ready")).await.json(), json!({"status": "ok"}));
    metrics.store_faults.fails(StoreWork::Write, StoreFault::Full);
    let answer = ask(&app, get("/health/ready")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("degraded")));
    let mut part = answer.json()["degraded"][0].clone();
    let since = part.as_object_mut().unwrap().remove("since").unwrap();
    assert!(since.as_str().unwrap().ends_with('Z') && since.as_str().unwrap().len() == 20, "{since}");
    assert_eq!(part, json!({"part": "adapter_store", "operation": "write", "reason": "full"}));
    assert_eq!(ask(&app, get("/health/live")).await.json(), json!({"status": "ok"}));
    metrics.store_faults.works(StoreWork::Write);
    metrics.missing_pins.set(PinFault::Capacity, 2);
    let mut part = ask(&app, get("/health/ready")).await.json()["degraded"][0].clone();
    assert!(part.as_object_mut().unwrap().remove("since").is_some());
    let pins = json!({"part": "pinned_adapters", "operation": "load", "reason": "capacity"});
    assert_eq!(part, pins);
    metrics.missing_pins.set(PinFault::Capacity, 0);
    assert_eq!(ask(&app, get("/health/ready")).await.json(), json!({"status": "ok"}));

    // One that waits for pinned adapters, or is to leave, takes what comes and invites nobody.
    for (state, code) in [(State::Pinning, "not_ready"), (State::Leaving, "draining")] {
        readiness.set(state);
        assert_eq!(found(&ask(&app, get("/health/ready")).await), (503, code.into()));
        let request = post("/v1/tokenize", r#"{"prompt": "a", "adapter": "sst2"}"#);
        assert_eq!(ask(&app, request).await.status, 200);
    }
    readiness.open();
    assert_eq!(readiness.state(), State::Leaving, "an end that has begun is not taken back");
    readiness.set(State::Pinning);
    readiness.open();
    assert_eq!(ask(&app, get("/health/ready")).await.status, 200);
}

#[tokio::test]
async fn the_engines_drain_is_told() {
    let stage = Stage::new();
    stage.service.engines[0].drain(std::time::Instant::now());
    assert!(matches!(stage.inbox.try_recv(), Ok(Command::Drain { .. })));
    let (app, _inbox) = stage.quiet();
    assert_eq!(found(&generate(&app, json!({"prompt": "a"})).await), (503, "draining".into()));
}

#[tokio::test]
async fn a_passed_deadline_is_not_to_be_retried() {
    let app =
        Stage::new().with_engine(|a| fail(&a, SequenceError::DeadlineExceeded(Duration::from_millis(5))));
    let answer = generate(&app, json!({"prompt": "a", "timeout_ms": 5})).await;
    assert_eq!(found(&answer), (504, "deadline_exceeded".into()));
    assert_eq!(answer.header("x-should-retry"), Some("false"));
}

#[tokio::test]
async fn a_panic_is_an_internal_error_without_its_text() {
    async fn panics() {
        panic!("secret")
    }
    let stage = Stage::new();
    let Service { metrics, readiness, .. } = stage.service;
    let (hosts, stuck_after) = (stage.options.hosts, stage.options.stuck_after);
    let (origins, traces) = (Origins::default(), None);
    let frame = Frame { metrics, readiness, stuck_after, hosts, origins, written, traces };
    let app = dressed(Router::new().route("/panic", routing::get(panics)), frame);
    let answer = ask(&app, get("/panic")).await;
    assert_eq!(found(&answer), (500, "internal".into()));
    assert!(!answer.text().contains("secret"));
}

async fn asked_as(app: &Router, host: &str, origin: Option<&str>) -> u16 {
    let mut request = get("/v1/adapters");
    request.headers_mut().insert(header::HOST, host.parse().unwrap());
    if let Some(origin) = origin {
        request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
    }
    ask(app, request).await.status.as_u16()
}

#[tokio::test]
async fn on_loopback_only_loopback_hosts_are_answered() {
    let app = server();
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"] {
        assert_eq!(asked_as(&app, host, None).await, 200, "{host}");
        assert_eq!(asked_as(&app, host, Some("http://localhost:3000")).await, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.0.0.1:8080", "a b", "127.0.0.1.nip.example"] {
        assert_eq!(asked_as(&app, host, None).await, 403, "{host}");
    }
    for origin in ["https://evil.example", "null", "", "http://127.0.0.1.evil.example"] {
        assert_eq!(asked_as(&app, "localhost", Some(origin)).await, 403, "{origin}");
    }
    let mut request = get("/health/live");
    request.headers_mut().insert(header::HOST, "evil.example".parse().unwrap());
    let error = ask(&app, request).await.error();
    assert_eq!((error.1.as_str(), error.2.as_str()), ("forbidden", Some("host")));
    assert!(error.3.contains("'evil.example'"));
}

#[tokio::test]
async fn beyond_loopback_a_page_must_come_from_the_host_it_names() {
    let mut stage = Stage::new();
    stage.options.hosts = Hosts::of(([0, 0, 0, 0], 8080).into());
    let (app, _inbox) = stage.quiet();
    assert_eq!(asked_as(&app, "dept.internal", None).await, 200);
    assert_eq!(asked_as(&app, "dept.internal:8080", Some("http://dept.internal")).await, 200);
    assert_eq!(asked_as(&app, "dept.internal", Some("https://evil.example")).await, 403);
}
