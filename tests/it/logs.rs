//! What a real server's log says of texts: nothing, unless it is told to.

use dept::api::grpc::proto::{
    GenerateRequest, generate_request::Prompt, inference_service_client::InferenceServiceClient,
};
use serde_json::{Value, json};

use crate::support::process::{Server, client};

const FILM: &str = "a warm and funny film .";

async fn posted(server: &Server, path: &str, id: &str, body: Value) -> Value {
    let sent = client().post(format!("{}{path}", server.http)).header("x-request-id", id).json(&body);
    sent.send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn texts_are_logged_with_their_requests_where_the_operator_asks_for_them() {
    let server = Server::start(&["--log-texts", "--log-format", "json"]);
    let input = json!({"adapter": "sst2", "inputs": {"sentence": FILM}});
    let answer = posted(&server, "/v1/generate", "short", input.clone()).await;
    // So long that its tokens are made on another thread.
    let many = json!({"adapter": "sst2", "prompt": vec![FILM; 100], "max_tokens": 2});
    let answers = posted(&server, "/v1/generate", "long", many).await;
    let labelled = posted(&server, "/v1/classify", "labels", input).await;
    let endpoint = tonic::transport::Endpoint::from_shared(server.grpc.clone()).unwrap();
    let mut call = tonic::Request::new(GenerateRequest {
        adapter: "sst2".to_owned(),
        prompt: Some(Prompt::Text(FILM.to_owned())),
        ..GenerateRequest::default()
    });
    call.metadata_mut().insert("x-request-id", "rpc".parse().unwrap());
    InferenceServiceClient::new(endpoint.connect().await.unwrap()).generate(call).await.unwrap();

    let log = server.log_file();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let log = std::fs::read_to_string(log.path()).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let warns =
        |line: &Value| line["level"] == "WARN" && line["message"].as_str().unwrap().contains("--log-texts");
    assert!(lines.iter().any(warns), "{log}");
    let texts = |id: &str, message: &str| -> Vec<Value> {
        let of = lines.iter().filter(|line| line["target"] == "dept::texts" && line["span"]["id"] == id);
        of.filter(|line| line["message"] == message).map(|line| line["text"].clone()).collect()
    };
    for (id, count) in [("short", 1), ("long", 100), ("labels", 1), ("rpc", 1)] {
        let prompts = texts(id, "prompt");
        assert_eq!(prompts.len(), count, "{id}: {log}");
        assert!(
            prompts.iter().all(|text| text.as_str().unwrap().contains("a warm and funny film")),
            "{id}: {log}"
        );
    }
    assert_eq!(texts("short", "answer"), [answer["text"].clone()]);
    assert_eq!(texts("long", "answer").len(), answers["results"].as_array().unwrap().len());
    assert_eq!(texts("labels", "likeliest label"), [labelled["label"].clone()]);
    assert_eq!(texts("rpc", "answer").len(), 1);
}

#[tokio::test]
async fn no_level_logs_a_text_unasked() {
    let server = Server::start(&["--log", "trace"]);
    let input = json!({"adapter": "sst2", "inputs": {"sentence": "a zanzibar of delights ."}});
    let answer = posted(&server, "/v1/generate", "asked", input.clone()).await;
    assert_eq!(posted(&server, "/v1/classify", "labelled", input).await["label"], answer["text"]);
    let log = server.log_file();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let log = std::fs::read_to_string(log.path()).unwrap();
    assert!(log.contains("TRACE"), "the level was taken");
    assert!(!log.contains("zanzibar"), "{log}");
}
