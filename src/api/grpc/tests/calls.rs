//! The life of a call: its deadline, its end before its time, its account, the drain.

use std::time::Duration;

use tonic::{Code, Request};

use super::{
    super::proto::GenerateStreamRequest,
    kit::{Server, asking, endpoint, next, retry, told},
};
use crate::{
    api::{
        State,
        http::{
            server::{MAX_STREAMS, Phase},
            tests::{
                kit::{GOOD, Stage, fail, say, token},
                wire::SOON,
            },
        },
    },
    domain::{SequenceError, TokenEvent},
};

fn streaming(text: &str) -> GenerateStreamRequest {
    GenerateStreamRequest { request: Some(asking(text)) }
}

/// Waits until `metrics` say `line`.
async fn until(metrics: &crate::telemetry::Metrics, line: &str) {
    while !metrics.render().contains(line) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_calls_deadline_is_the_sequences() {
    let (server, arrivals) = Server::staged(Stage::new()).await;
    let began = std::time::Instant::now();
    let mut request = Request::new(asking("a"));
    request.set_timeout(Duration::from_secs(600));
    let mut client = server.inference();
    let call = tokio::spawn(async move { client.generate(request).await });
    let (arrival, arrivals) = next(arrivals).await;
    let deadline = arrival.submission.deadline.unwrap();
    let left = deadline.duration_since(began);
    assert!(left <= Duration::from_secs(601) && left > Duration::from_secs(300), "{left:?}");
    fail(&arrival, SequenceError::DeadlineExceeded(Duration::from_secs(600)));
    let status = call.await.unwrap().unwrap_err();
    assert_eq!((told(&status).1.as_str(), status.code()), ("DEADLINE_EXCEEDED", Code::DeadlineExceeded));
    assert_eq!(retry(&status), None);
    // Without one there is none.
    let mut client = server.inference();
    let call = tokio::spawn(async move { client.generate(asking("a")).await });
    let (arrival, _arrivals) = next(arrivals).await;
    assert_eq!(arrival.submission.deadline, None);
    say(&arrival, &[(GOOD, "good")], "");
    assert_eq!(call.await.unwrap().unwrap().into_inner().choices[0].text, "good");
}

#[tokio::test]
async fn a_call_that_nobody_answers_ends_at_its_deadline() {
    let (server, _inbox) = Server::quiet(Stage::new()).await;
    // Another client than tonic's, which would end the call by itself.
    let (send, connection) = h2::client::handshake(server.wire.connect().await).await.unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::post("http://localhost/dept.v1.InferenceService/Generate")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "50m");
    let mut send = send.ready().await.unwrap();
    let (response, mut upload) = send.send_request(request.body(()).unwrap(), false).unwrap();
    // The text "a".
    upload.send_data(bytes::Bytes::from_static(b"\x00\x00\x00\x00\x03\x12\x01a"), true).unwrap();
    let response = response.await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!((told(&status).1.as_str(), status.code()), ("DEADLINE_EXCEEDED", Code::DeadlineExceeded));
    assert!(status.message().contains("50ms"), "{}", status.message());
}

#[tokio::test]
async fn a_call_that_is_given_up_is_cancelled() {
    let stage = Stage::new();
    let metrics = stage.metrics();
    let (server, arrivals) = Server::staged(stage).await;
    let mut client = server.inference();
    let call = tokio::spawn(async move { client.generate(asking("a")).await });
    let (arrival, arrivals) = next(arrivals).await;
    call.abort();
    // The engine looks at this before each step.
    arrival.events.closed().await;
    let endpoint = "dept_requests_total{endpoint=\"/dept.v1.InferenceService";
    until(&metrics, &format!("{endpoint}/Generate\",outcome=\"cancelled\"}} 1")).await;
    let mut stream = server.inference().generate_stream(streaming("a")).await.unwrap().into_inner();
    let (arrival, _arrivals) = next(arrivals).await;
    arrival.events.send(TokenEvent::Token(token(&arrival, GOOD, "good"))).unwrap();
    assert!(stream.message().await.unwrap().is_some());
    drop(stream);
    arrival.events.closed().await;
    until(&metrics, &format!("{endpoint}/GenerateStream\",outcome=\"cancelled\"}} 1")).await;
}

#[tokio::test]
async fn a_failure_in_the_middle_of_a_stream_is_its_status() {
    let stage = Stage::new();
    let metrics = stage.metrics();
    let server = Server::of(stage, |arrival| {
        let _ = arrival.events.send(TokenEvent::Token(token(&arrival, GOOD, "good")));
        fail(&arrival, SequenceError::Draining);
    })
    .await;
    let mut request = Request::new(streaming("a"));
    request.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
    let mut stream = server.inference().generate_stream(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let details = tonic_types::StatusExt::get_error_details(&status);
    assert_eq!(details.error_info().unwrap().reason, "DRAINING");
    assert_eq!(details.request_info().unwrap().request_id, "mine");
    assert_eq!(retry(&status), Some(1));
    let line =
        r#"dept_requests_total{endpoint="/dept.v1.InferenceService/GenerateStream",outcome="draining"} 1"#;
    until(&metrics, line).await;
}

#[tokio::test]
async fn calls_are_counted_like_requests() {
    let stage = Stage::new();
    let metrics = stage.metrics();
    let server = Server::of(stage, |arrival| say(&arrival, &[(GOOD, "good")], "")).await;
    server.inference().generate(asking("a")).await.unwrap();
    server.inference().generate(asking("")).await.unwrap_err();
    let mut stream = server.inference().generate_stream(streaming("a")).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    for line in [
        r#"dept_requests_total{endpoint="/dept.v1.InferenceService/Generate",outcome="ok"} 1"#,
        r#"dept_requests_total{endpoint="/dept.v1.InferenceService/Generate",outcome="invalid_request"} 1"#,
        r#"dept_requests_total{endpoint="/dept.v1.InferenceService/GenerateStream",outcome="ok"} 1"#,
        r#"dept_tenant_requests_total{outcome="ok",tenant="default"} 2"#,
        r#"dept_tenant_tokens_total{kind="generated",tenant="default"} 2"#,
        "dept_request_duration_seconds_count 3",
    ] {
        until(&metrics, line).await;
    }
}

#[tokio::test]
async fn ids_are_made_and_foolish_ones_are_not_taken_over() {
    let server = Server::start().await;
    let long = "x".repeat(129);
    for sent in ["", long.as_str(), "a b"] {
        let mut request = Request::new(asking("a"));
        request.metadata_mut().insert("x-request-id", sent.parse().unwrap());
        let answer = server.inference().generate(request).await.unwrap();
        let id = answer.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        assert!(id != sent && uuid::Uuid::parse_str(&id).is_ok(), "{id}");
        assert_eq!(answer.into_inner().id, id);
    }
}

#[tokio::test]
async fn a_drain_refuses_what_is_new_and_lets_streams_finish() {
    let stage = Stage::new();
    let readiness = stage.service.readiness.clone();
    let (server, arrivals) = Server::staged(stage).await;
    let mut stream = server.inference().generate_stream(streaming("a")).await.unwrap().into_inner();
    let (arrival, _arrivals) = next(arrivals).await;
    readiness.set(State::Draining);
    let status = server.inference().generate(asking("a")).await.unwrap_err();
    assert_eq!((told(&status).1.as_str(), status.code()), ("DRAINING", Code::Unavailable));
    server.wire.phase.send(Phase::Draining).unwrap();
    assert!(!server.wire.served.is_finished());
    say(&arrival, &[(GOOD, "good")], "");
    let mut messages = 0;
    while stream.message().await.unwrap().is_some() {
        messages += 1;
    }
    assert_eq!(messages, 2, "a delta and the response");
    server.wire.served.await.unwrap();
}

#[tokio::test]
async fn the_loops_limits_hold_here_too() {
    let stage = Stage::new();
    let limits =
        crate::config::ConnectionLimits { idle_timeout: SOON, ..crate::api::http::tests::wire::PATIENT };
    let server = Server::within(stage, limits, |arrival| say(&arrival, &[(GOOD, "good")], "")).await;
    let (mut send, mut connection) = h2::client::handshake(server.wire.connect().await).await.unwrap();
    let request = axum::http::Request::post("http://localhost/dept.v1.InferenceService/Nothing")
        .header("content-type", "application/grpc");
    let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
    let response = tokio::select! {
        response = response => response.unwrap(),
        ended = &mut connection => panic!("{ended:?}"),
    };
    assert_eq!(response.headers()["grpc-status"], "12");
    assert_eq!(connection.max_concurrent_send_streams(), MAX_STREAMS as usize);
    // It is closed in the end, and a channel opens another.
    let _ = connection.await;
    let lazy = endpoint(&server.wire).connect_lazy();
    let mut client = super::super::proto::inference_service_client::InferenceServiceClient::new(lazy);
    client.generate(asking("a")).await.unwrap();
}
