//! What a collector is told of calls.

use serde_json::json;
use tonic::{Code, Request};

use super::{
    super::proto::{ClassifyRequest, GenerateRequest, GenerateStreamRequest, classify_request},
    kit::{Server, asking},
};
use crate::{
    api::http::tests::{
        kit::{GOOD, Stage, say},
        traces::{CALLER, family, traced},
    },
    telemetry::traces::{Delivery, tests::Station},
};

async fn server() -> (Server, Station, Delivery) {
    let (stage, station, delivery) = traced(Stage::new(), 1.0).await;
    let server = Server::of(stage, |arrival| say(&arrival, &[(GOOD, "good")], "")).await;
    (server, station, delivery)
}

fn called<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", CALLER.parse().unwrap());
    request
}

#[tokio::test]
async fn a_call_is_one_span_in_its_callers_trace() {
    let (server, station, _delivery) = server().await;
    let asked = GenerateRequest { adapter: "sst2".into(), ..asking("sentence: a film") };
    let answer = server.inference().generate(called(asked)).await.unwrap();
    let spans = station.spans(4).await;
    let (own, parts) = family(&spans);
    let place = answer.metadata().get("traceparent").unwrap().to_str().unwrap();
    assert_eq!(place, format!("{}{}-01", &CALLER[..36], own.id));
    assert_eq!((own.name.as_str(), own.parent.as_str()), ("text_completion sst2", &CALLER[36..52]));
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), ["decode", "prefill", "queue"]);
    for (name, value) in [
        ("rpc.system.name", json!("grpc")),
        ("rpc.method", json!("dept.v1.InferenceService/Generate")),
        ("rpc.response.status_code", json!("OK")),
        ("gen_ai.usage.input_tokens", json!(4)),
        ("dept.usage.virtual_tokens", json!(2)),
        ("gen_ai.request.stream", json!(false)),
        ("dept.tenant", json!("default")),
    ] {
        assert_eq!(own.attributes[name], value, "{name}");
    }
    assert!(!own.attributes.keys().any(|name| name.starts_with("http.")), "{own:#?}");
    let said = String::from_utf8_lossy(&station.bytes()).into_owned();
    assert!(!said.contains("sentence") && !said.contains("good"), "{said}");
}

#[tokio::test]
async fn streams_scores_and_failures_are_told_too() {
    let (server, station, _delivery) = server().await;
    let asked = GenerateStreamRequest { request: Some(asking("a")) };
    let mut stream = server.inference().generate_stream(called(asked)).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    let spans = station.spans(4).await;
    let (own, _) = family(&spans);
    assert_eq!(
        (own.name.as_str(), &own.attributes["gen_ai.request.stream"]),
        ("text_completion tiny", &json!(true))
    );
    assert_eq!(own.attributes["rpc.method"], "dept.v1.InferenceService/GenerateStream");

    let asked = ClassifyRequest {
        adapter: "sst2".into(),
        prompt: Some(classify_request::Prompt::Text("a".into())),
        ..ClassifyRequest::default()
    };
    server.inference().classify(called(asked)).await.unwrap();
    let spans = &station.spans(4 + 7).await[4..];
    assert_eq!(spans.iter().find(|span| span.kind == 2).unwrap().name, "classify sst2");

    let asked = GenerateRequest { adapter: "nope".into(), ..asking("a") };
    let status = server.inference().generate(called(asked)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let spans = station.spans(12).await;
    let own = &spans[11];
    assert!(status.metadata().get("traceparent").unwrap().to_str().unwrap().contains(&own.id));
    assert_eq!(own.attributes["rpc.response.status_code"], "NOT_FOUND");
    assert_eq!((&own.attributes["error.type"], &own.status), (&json!("adapter_not_found"), &None));
}
