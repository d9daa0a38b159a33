//! A real server and a collector: spans of real requests, logs that name their traces, an end that loses none.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use dept::api::grpc::proto::{
    GenerateRequest, generate_request::Prompt, inference_service_client::InferenceServiceClient,
};
use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use prost::Message;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify};

use crate::support::process::{Server, client};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const PROMPT: &str = "sentence: a warm and funny film .";

#[derive(Default)]
struct Collector {
    bodies: Mutex<Vec<Bytes>>,
    came: Notify,
}

impl Collector {
    /// Listens on a port of this machine.
    async fn open() -> (Arc<Self>, String) {
        let collector = Arc::<Self>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let take = |State(collector): State<Arc<Self>>, body: Bytes| async move {
            collector.bodies.lock().unwrap().push(body);
            collector.came.notify_waiters();
        };
        let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&collector));
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        let messages = bodies.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap());
        let resources = messages.flat_map(|message| message.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// The spans of a request by their names, once they have come.
    async fn request(&self, id: &str) -> BTreeMap<String, Span> {
        let says = |span: &Span| {
            let values = span.attributes.iter().filter(|pair| pair.key == "dept.request.id");
            values.filter_map(|pair| pair.value.as_ref()).any(|value| format!("{value:?}").contains(id))
        };
        loop {
            let more = self.came.notified();
            let spans = self.spans();
            if let Some(own) = spans.iter().find(|span| says(span)) {
                let family = spans.iter().filter(|span| span.parent_span_id == own.span_id);
                let mut names: BTreeMap<String, Span> =
                    family.map(|span| (span.name.clone(), span.clone())).collect();
                names.insert("request".to_owned(), own.clone());
                return names;
            }
            more.await;
        }
    }
}

async fn generate(server: &Server, id: &str) -> u16 {
    let body = json!({"adapter": "sst2", "prompt": PROMPT, "max_tokens": 8});
    let sent = client().post(format!("{}/v1/generate", server.http)).json(&body);
    let sent = sent.header("x-request-id", id).header("traceparent", CALLER);
    sent.send().await.unwrap().status().as_u16()
}

fn names(spans: &BTreeMap<String, Span>) -> Vec<&str> {
    spans.keys().map(String::as_str).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// The collector must hear while this waits for the server's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_requests_are_traced_on_both_doors_and_the_last_ones_too() {
    let (collector, address) = Collector::open().await;
    let server = Server::start(&["--otlp-endpoint", &address, "--log-format", "json"]);
    assert_eq!(generate(&server, "first").await, 200);
    let first = collector.request("first").await;
    let expected = ["decode", "load_adapter", "prefill", "queue", "request"];
    assert_eq!(names(&first), expected, "the answer has a word and its end token");
    let own = &first["request"];
    let says = |key: &str| {
        let value = own.attributes.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
        format!("{:?}", value.unwrap())
    };
    assert!(says("url.scheme").contains(r#""http""#), "{}", says("url.scheme"));
    assert_eq!((hex(&own.trace_id).as_str(), hex(&own.parent_span_id).as_str()), (TRACE, "00f067aa0ba902b7"));
    for (name, part) in &first {
        assert!(part.start_time_unix_nano >= own.start_time_unix_nano, "{name}");
        assert!(part.end_time_unix_nano <= own.end_time_unix_nano, "{name}");
        assert!(part.end_time_unix_nano > part.start_time_unix_nano, "{name}");
    }
    assert!(first["load_adapter"].end_time_unix_nano <= first["queue"].start_time_unix_nano);

    let endpoint = tonic::transport::Endpoint::from_shared(server.grpc.clone()).unwrap();
    let mut grpc = InferenceServiceClient::new(endpoint.connect().await.unwrap());
    let message = GenerateRequest {
        adapter: "sst2".to_owned(),
        prompt: Some(Prompt::Text(PROMPT.to_owned())),
        max_tokens: Some(8),
        ..GenerateRequest::default()
    };
    let mut call = tonic::Request::new(message);
    call.metadata_mut().insert("x-request-id", "second".parse().unwrap());
    let answer = grpc.generate(call).await.unwrap();
    let second = collector.request("second").await;
    assert_eq!(names(&second), ["decode", "prefill", "queue", "request"], "it is in memory by now");
    let place = answer.metadata().get("traceparent").unwrap().to_str().unwrap();
    let own = &second["request"];
    assert_eq!(place, format!("00-{}-{}-01", hex(&own.trace_id), hex(&own.span_id)));
    assert!(own.parent_span_id.is_empty());

    // Spans wait a second for others to go with: those of the last request are still here when the signal comes.
    assert_eq!(generate(&server, "third").await, 200);
    drop(grpc);
    let log = server.log_file();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(names(&collector.request("third").await).len(), 4);

    let log = std::fs::read_to_string(log.path()).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ended: Vec<Value> = lines.filter(|line| line["message"] == "request ended").collect();
    let line = |id: &str| ended.iter().find(|line| line["id"] == id).unwrap();
    assert_eq!((&line("first")["trace_id"], &line("first")["outcome"]), (&json!(TRACE), &json!("ok")));
    assert_eq!(line("second")["trace_id"], json!(hex(&second["request"].trace_id)));
    let told = String::from_utf8_lossy(&collector.bodies.lock().unwrap().concat()).into_owned() + &log;
    for text in ["warm", "funny", "film", "positive"] {
        assert!(!told.contains(text), "{text}");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_costs_a_line_in_the_log() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = Server::start(&["--otlp-endpoint", &format!("http://{gone}")]);
    for round in 0..3 {
        for at in 0..5 {
            assert_eq!(generate(&server, &format!("{round}-{at}")).await, 200);
        }
        while !server.log().contains("traces do not reach the collector") {
            tokio::task::yield_now().await;
        }
    }
    let log = server.log_file();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let log = std::fs::read_to_string(log.path()).unwrap();
    assert_eq!(log.matches("traces do not reach the collector").count(), 1, "{log}");
    assert!(log.contains(&format!("http://{gone}/v1/traces")), "{log}");
}

#[test]
fn a_wrong_collector_is_said_so_and_a_key_is_not_repeated() {
    let run = |args: &[&str]| crate::support::process::run(&[&["serve"], args].concat());
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--otlp-endpoint", "collector:4318"], 2, "http://collector:4318"),
        (&["--otlp-endpoint", "http://c:4318", "--otlp-sample", "2"], 2, "a number from 0 to 1"),
        (&["--otlp-headers", "k=v"], 78, "--otlp-headers needs --otlp-endpoint"),
        (&["--otlp-endpoint", "http://c:4318", "--otlp-headers", "hushhush"], 78, "header 1 is none"),
    ];
    for (args, code, message) in cases {
        let output = run(args);
        let said = crate::support::process::said(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(message), "{said}");
        assert!(!said.contains("hushhush"), "{said}");
    }
}
