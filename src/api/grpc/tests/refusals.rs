//! What is refused, and how that is told.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tonic::{Code, Request, Status};

use super::{
    super::proto::{
        ClassifyRequest, GenerateRequest, GenerateStreamRequest, Inputs, Sampling, TokenIds,
        generate_request::Prompt,
    },
    kit::{Server, asking, retry, told},
};
use crate::api::{
    ErrorCode,
    http::tests::{
        kit::{QUEUE, Stage},
        wire::SOON,
    },
};

/// Asks something illegal.
async fn refused(server: &Server, asked: GenerateRequest) -> (Code, String, Option<String>, String) {
    told(&server.inference().generate(asked).await.unwrap_err())
}

#[tokio::test]
async fn a_value_out_of_its_range_is_named() {
    let server = Server::start().await;
    let sampled = |sampling| GenerateRequest { sampling: Some(sampling), ..asking("a") };
    let with = |prompt| GenerateRequest { prompt: Some(prompt), ..GenerateRequest::default() };
    let cases = [
        ("prompt", GenerateRequest::default()),
        ("text", asking("")),
        ("prompt[1]", with(Prompt::TokenIds(TokenIds { ids: vec![1, 8] }))),
        ("prompt", with(Prompt::TokenIds(TokenIds::default()))),
        ("inputs", with(Prompt::Inputs(Inputs::default()))),
        ("adapter", GenerateRequest { adapter: "No".into(), ..asking("a") }),
        ("n", GenerateRequest { n: Some(0), ..asking("a") }),
        ("n", GenerateRequest { n: Some(65), ..asking("a") }),
        ("max_tokens", GenerateRequest { max_tokens: Some(0), ..asking("a") }),
        ("min_tokens", GenerateRequest { min_tokens: 30, ..asking("a") }),
        ("stop[0]", GenerateRequest { stop: vec![String::new()], ..asking("a") }),
        ("truncate", GenerateRequest { truncate: 9, ..asking("a") }),
        ("temperature", sampled(Sampling { temperature: Some(-1.0), ..Sampling::default() })),
        ("temperature", sampled(Sampling { temperature: Some(f64::NAN), ..Sampling::default() })),
        ("logprobs", sampled(Sampling { logprobs: Some(21), ..Sampling::default() })),
        ("logprobs", sampled(Sampling { logprobs: Some(256), ..Sampling::default() })),
    ];
    for (field, asked) in cases {
        let (code, reason, found, message) = refused(&server, asked).await;
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{field}");
        assert_eq!(found.as_deref(), Some(field), "{message}");
    }
    let long = asking(&"a ".repeat(20));
    let (code, reason, ..) = refused(&server, long).await;
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "INPUT_TOO_LONG"));
    let classify = ClassifyRequest { normalize: 9, ..ClassifyRequest::default() };
    let status = server.inference().classify(classify).await.unwrap_err();
    assert_eq!(told(&status).2.as_deref(), Some("prompt"));
    let status = server.inference().generate_stream(GenerateStreamRequest::default()).await.unwrap_err();
    assert_eq!(told(&status).2.as_deref(), Some("request"));
}

#[tokio::test]
async fn an_unknown_adapter_and_an_unknown_rpc() {
    let server = Server::start().await;
    let (code, reason, field, message) =
        refused(&server, GenerateRequest { adapter: "nope".into(), ..asking("a") }).await;
    assert_eq!((code, reason.as_str(), field), (Code::NotFound, "ADAPTER_NOT_FOUND", None));
    assert!(message.contains("'nope'"), "{message}");
    let mut raw = tonic::client::Grpc::new(server.channel.clone());
    raw.ready().await.unwrap();
    let path = "/dept.v1.InferenceService/Nothing".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<GenerateRequest, GenerateRequest>::default();
    let status = raw.unary(Request::new(asking("a")), path, codec).await.unwrap_err();
    let (code, reason, _, message) = told(&status);
    assert_eq!((code, reason.as_str()), (Code::Unimplemented, "NOT_FOUND"));
    assert!(message.contains("/dept.v1.InferenceService/Nothing"), "{message}");
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let (server, _inbox) = Server::quiet(Stage::new()).await;
    let most = u32::try_from(QUEUE).unwrap();
    let held = GenerateRequest { n: Some(most), ..asking("a") };
    let held = GenerateStreamRequest { request: Some(held) };
    let _held = server.inference().generate_stream(held).await.unwrap();
    let status = server.inference().generate(asking("a")).await.unwrap_err();
    assert_eq!(told(&status).1, "OVERLOADED");
    assert_eq!((status.code(), retry(&status)), (Code::ResourceExhausted, Some(1)));
}

#[tokio::test]
async fn messages_have_a_limit() {
    let mut stage = Stage::new();
    stage.options.max_body_bytes = 64;
    let server = Server::of(stage, |_| ()).await;
    let (code, reason, _, message) = refused(&server, asking(&"a".repeat(64))).await;
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "TOO_LARGE"));
    assert!(message.contains("64 bytes"), "{message}");
}

/// Sends bytes as the body of a call.
async fn raw(
    server: &Server,
    kind: &str,
    headers: &[(&str, &str)],
    body: &'static [u8],
) -> Result<(), Status> {
    let mut request = axum::http::Request::post("/dept.v1.InferenceService/Generate")
        .header("content-type", kind)
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = tonic::body::Body::new(Full::new(Bytes::from_static(body)));
    let mut channel = server.channel.clone();
    let response = tower::ServiceExt::ready(&mut channel).await.unwrap();
    let response = tower::Service::call(response, request.body(body).unwrap()).await.unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(status);
    }
    assert_eq!(response.status(), 415);
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("speaks gRPC"), "{text:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_no_message_is_told() {
    let server = Server::start().await;
    type Case = (&'static [(&'static str, &'static str)], &'static [u8], &'static str, Code);
    let cases: [Case; 7] = [
        (&[], b"\x00\x00\x00\x00\x02\xff\xff", "INVALID_REQUEST", Code::InvalidArgument),
        (&[], b"\x00\x00\x00\x00\x09\xff", "INVALID_REQUEST", Code::InvalidArgument),
        (&[], b"\x07\x00\x00\x00\x00", "INVALID_REQUEST", Code::InvalidArgument),
        (&[], b"", "INVALID_REQUEST", Code::InvalidArgument),
        (&[], b"\x00\xff\xff\xff\xff", "TOO_LARGE", Code::ResourceExhausted),
        (
            &[("grpc-encoding", "gzip")],
            b"\x01\x00\x00\x00\x00",
            "UNSUPPORTED_MEDIA_TYPE",
            Code::Unimplemented,
        ),
        (&[("grpc-timeout", "soon")], b"\x00\x00\x00\x00\x00", "INVALID_REQUEST", Code::InvalidArgument),
    ];
    for (headers, body, reason, code) in cases {
        let status = raw(&server, "application/grpc", headers, body).await.unwrap_err();
        assert_eq!((told(&status).1.as_str(), status.code()), (reason, code), "{body:?}: {status:?}");
    }
    for kind in ["application/json", "application/grpc-web", "text/plain", "application/grpcx"] {
        assert!(raw(&server, kind, &[], b"\x00\x00\x00\x00\x00").await.is_ok(), "{kind}");
    }
    let host = [("origin", "https://evil.example")];
    let status = raw(&server, "application/grpc+proto", &host, b"").await.unwrap_err();
    assert_eq!((told(&status).1.as_str(), status.code()), ("FORBIDDEN", Code::PermissionDenied));
}

#[tokio::test]
async fn a_client_of_http_1_is_told_where_to_go() {
    let server = Server::start().await;
    let head =
        "POST /v1/generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let text = server.wire.say(head.as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 415") && text.contains("the address of --http"), "{text}");
}

#[tokio::test]
async fn messages_that_do_not_come_are_not_waited_for() {
    let mut stage = Stage::new();
    stage.options.body_timeout = SOON;
    let server = Server::of(stage, |_| ()).await;
    let (send, connection) = h2::client::handshake(server.wire.connect().await).await.unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::post("http://localhost/dept.v1.InferenceService/Generate")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let mut send = send.ready().await.unwrap();
    let (response, mut upload) = send.send_request(request.body(()).unwrap(), false).unwrap();
    upload.send_data(Bytes::from_static(b"\x00\x00"), false).unwrap();
    let response = response.await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!((told(&status).1.as_str(), status.code()), ("REQUEST_TIMEOUT", Code::DeadlineExceeded));
}

#[tokio::test]
async fn a_refusal_fits_into_the_headers_that_clients_take() {
    let server = Server::start().await;
    let hostile = "é%\"\u{1F600}".repeat(2000);
    let asked = GenerateRequest { adapter: hostile, ..asking("a") };
    let status = server.inference().generate(asked).await.unwrap_err();
    let details = status.details().len().div_ceil(3) * 4;
    let encoded: usize =
        status.message().bytes().map(|byte| if byte.is_ascii_alphanumeric() { 1 } else { 3 }).sum();
    assert!(encoded + details < 6000, "{encoded} {details}");
    assert!(status.message().ends_with('…'), "{}", status.message());
}

#[test]
fn every_code_has_a_status_that_carries_it() {
    for row in ErrorCode::table() {
        let status = super::super::status::carrying(crate::api::ApiError::new(row.code, "why"));
        assert_eq!(super::super::status::error_of(&status).code, row.code);
        assert_eq!(status.code(), row.grpc);
        assert_ne!(row.grpc, Code::Ok);
    }
}
