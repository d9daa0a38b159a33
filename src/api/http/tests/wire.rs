//! The server loop over real sockets: what clients do to hold more than their share.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::kit::{Stage, token};
use crate::{
    api::http::server::{Phase, serve},
    config::ConnectionLimits,
    domain::TokenEvent,
    engine::{Arrival, Command},
};

/// Limits that no test waits for.
pub const PATIENT: ConnectionLimits = ConnectionLimits {
    max_connections: 16,
    head_timeout: Duration::from_secs(600),
    idle_timeout: Duration::from_secs(600),
    stall_timeout: Duration::from_secs(600),
};

pub const SOON: Duration = Duration::from_millis(50);

/// A server on a socket.
pub struct Wire {
    pub address: SocketAddr,
    pub phase: watch::Sender<Phase>,
    pub served: JoinHandle<()>,
}

impl Wire {
    pub async fn serve(router: Router, limits: ConnectionLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (phase, phases) = watch::channel(Phase::Serving);
        Self { address, phase, served: tokio::spawn(serve(listener, None, router, limits, phases)) }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `bytes` and reads until the server closes.
    pub async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        rest_of(stream).await
    }
}

/// What comes until the server closes, or breaks off.
async fn rest_of(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads the head of an answer and as much as its length says.
async fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let head = loop {
        assert!(
            stream.read_buf(&mut bytes).await.unwrap() > 0,
            "closed: {}",
            String::from_utf8_lossy(&bytes)
        );
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap().to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    while bytes.len() < head + length {
        stream.read_buf(&mut bytes).await.unwrap();
    }
    (text[9..12].parse().unwrap(), String::from_utf8(bytes[head..].to_vec()).unwrap())
}

/// The error of a whole answer, its shape checked.
fn error_of(text: &str) -> (u16, String) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let json: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {text}"));
    let id = json["error"]["request_id"].as_str().unwrap();
    assert!(head.contains(&format!("x-request-id: {id}")), "{head}");
    assert!(head.to_ascii_lowercase().contains(&format!("content-length: {}", body.len())), "{head}");
    (head[9..12].parse().unwrap(), json["error"]["code"].as_str().unwrap().to_owned())
}

const HEALTH: &[u8] = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
pub const LAST_HEALTH: &[u8] = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

fn server() -> Router {
    super::kit::server()
}

fn post(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST /v1/generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_closes_when_asked() {
    let wire = Wire::serve(server(), PATIENT).await;
    let mut stream = wire.connect().await;
    for _ in 0..3 {
        stream.write_all(HEALTH).await.unwrap();
        assert_eq!(answer(&mut stream).await, (200, r#"{"status":"ok"}"#.to_owned()));
    }
    stream.write_all(&post(&json!({"prompt": "a"}))).await.unwrap();
    let (status, body) = answer(&mut stream).await;
    assert_eq!((status, &serde_json::from_str::<Value>(&body).unwrap()["text"]), (200, &json!("good")));
    stream.write_all(LAST_HEALTH).await.unwrap();
    assert!(rest_of(stream).await.ends_with(r#"{"status":"ok"}"#));
}

#[tokio::test]
async fn slow_heads_and_silence_are_cut_off() {
    let wire = Wire::serve(server(), ConnectionLimits { head_timeout: SOON, ..PATIENT }).await;
    for start in [&b""[..], b"G", b"GET /health/live HTTP/1.1\r\nhost: loc", b"PRI * HTTP/2.0\r\n", b"PRI"] {
        assert_eq!(wire.say(start).await, "", "{}", String::from_utf8_lossy(start));
    }
    // The second head of a connection is watched like the first.
    let mut stream = wire.connect().await;
    stream.write_all(HEALTH).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 200);
    stream.write_all(b"GET /hea").await.unwrap();
    assert_eq!(rest_of(stream).await, "");
    // HTTP/2 that never asks.
    let text = wire.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
    assert!(!text.contains("HTTP/1.1"), "{text}");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let wire = Wire::serve(server(), ConnectionLimits { idle_timeout: SOON, ..PATIENT }).await;
    let mut stream = wire.connect().await;
    stream.write_all(HEALTH).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 200);
    assert_eq!(rest_of(stream).await, "");
}

#[tokio::test]
async fn a_slow_body_is_told_and_cut_off() {
    let mut stage = Stage::new();
    stage.options.body_timeout = SOON;
    let (app, _inbox) = stage.quiet();
    let wire = Wire::serve(app, ConnectionLimits { head_timeout: SOON, ..PATIENT }).await;
    let head = "POST /v1/generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    for framing in ["content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let text = wire.say(format!("{head}{framing}").as_bytes()).await;
        assert_eq!(error_of(&text.replace("date:", "x:")), (408, "request_timeout".into()), "{text}");
    }
    let upload = "PUT /v1/adapters/slow HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/zip\r\n\
                  content-length: 1000\r\n\r\nPK";
    assert_eq!(error_of(&wire.say(upload.as_bytes()).await).0, 408);
}

#[tokio::test]
async fn heads_have_a_limit_and_every_refusal_the_one_shape() {
    let wire = Wire::serve(server(), PATIENT).await;
    let with = |headers: &str| format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    let close = "connection: close\r\n";
    let long = |bytes: usize| with(&format!("x: {}\r\n{close}", "a".repeat(bytes)));
    let many = |count: usize| with(&("x: a\r\n".repeat(count) + close));
    for good in [long(10_000), long(30_000), many(98)] {
        assert!(wire.say(good.as_bytes()).await.starts_with("HTTP/1.1 200"), "{} bytes", good.len());
    }
    let path = |bytes: usize| format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(bytes));
    for large in [long(40_000), long(1_000_000), many(101), many(10_000), path(40_000), path(70_000)] {
        let text = wire.say(large.as_bytes()).await;
        // A client that is still sending when it is refused may see a reset in place of the answer.
        if !text.is_empty() {
            assert_eq!(error_of(&text), (431, "head_too_large".into()), "{} bytes", large.len());
        }
    }
    assert_eq!(error_of(&wire.say(long(33_000).as_bytes()).await), (431, "head_too_large".into()));
    assert_eq!(error_of(&wire.say(many(101).as_bytes()).await), (431, "head_too_large".into()));
    for garbage in
        ["\x16\x03\x01\x02\x00\x01\x00\x01", "GET\r\n\r\n", "G\0T / HTTP/1.1\r\n\r\n", "GET / HTTP/9\r\n\r\n"]
    {
        let text = wire.say(garbage.as_bytes()).await;
        assert_eq!(error_of(&text), (400, "invalid_request".into()), "{garbage:?}");
    }
    let two = "GET /health/live HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(wire.say(two.as_bytes()).await.starts_with("HTTP/1.1 400"));
    let lengths =
        "POST /v1/generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}";
    assert_eq!(error_of(&wire.say(lengths.as_bytes()).await).0, 400);
    // An answer of ours that has a body is left as it is.
    let text = wire.say(format!("GET /nothing HTTP/1.1\r\nhost: localhost\r\n{close}\r\n").as_bytes()).await;
    assert_eq!(error_of(&text), (404, "not_found".into()));
}

/// Says much more than any socket holds, then waits until nobody listens.
pub async fn flood(arrival: Arrival) {
    let text = "x".repeat(64 << 10);
    for _ in 0..400 {
        if arrival.events.send(TokenEvent::Token(token(&arrival, 3, &text))).is_err() {
            return;
        }
    }
    arrival.events.closed().await;
}

/// The routes, and the sequences that arrive.
pub fn staged() -> (Router, tokio::sync::mpsc::UnboundedReceiver<Arrival>) {
    let (app, inbox) = Stage::new().quiet();
    let (send, arrivals) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Ok(Command::Submit(arrival)) = inbox.recv() {
            if send.send(*arrival).is_err() {
                return;
            }
        }
    });
    (app, arrivals)
}

#[tokio::test]
async fn a_client_that_never_reads_loses_its_stream() {
    let (app, mut arrivals) = staged();
    let wire = Wire::serve(app, ConnectionLimits { stall_timeout: SOON, ..PATIENT }).await;
    let mut stream = wire.connect().await;
    stream.write_all(&post(&json!({"prompt": "a", "stream": true}))).await.unwrap();
    flood(arrivals.recv().await.unwrap()).await;
    let text = rest_of(stream).await;
    assert!(!text.contains("[DONE]"));
}

#[tokio::test]
async fn over_the_cap_connections_wait_and_the_admin_address_answers() {
    let wire = Wire::serve(server(), ConnectionLimits { max_connections: 2, ..PATIENT }).await;
    let admin = Wire::serve(Router::new().route("/health/live", get(|| async { "admin" })), PATIENT).await;
    let mut held = [wire.connect().await, wire.connect().await];
    for stream in &mut held {
        stream.write_all(HEALTH).await.unwrap();
        assert_eq!(answer(stream).await.0, 200);
    }
    let mut third = wire.connect().await;
    third.write_all(HEALTH).await.unwrap();
    assert!(admin.say(LAST_HEALTH).await.ends_with("admin"));
    let mut byte = [0];
    assert!(third.try_read(&mut byte).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    let [first, _second] = held;
    drop(first);
    assert_eq!(answer(&mut third).await.0, 200);
}

#[tokio::test]
async fn a_drain_ends_idle_connections_and_lets_streams_finish() {
    let (app, mut arrivals) = staged();
    let wire = Wire::serve(app, PATIENT).await;
    let mut idle = wire.connect().await;
    idle.write_all(HEALTH).await.unwrap();
    assert_eq!(answer(&mut idle).await.0, 200);
    let mut busy = wire.connect().await;
    busy.write_all(&post(&json!({"prompt": "a", "stream": true}))).await.unwrap();
    let arrival = arrivals.recv().await.unwrap();
    wire.phase.send(Phase::Draining).unwrap();
    assert_eq!(rest_of(idle).await, "");
    while TcpStream::connect(wire.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!wire.served.is_finished());
    super::kit::say(&arrival, &[(3, "good")], "");
    assert!(rest_of(busy).await.contains("data: [DONE]"));
    wire.served.await.unwrap();
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let wire = Wire::serve(server(), PATIENT).await;
    let megabytes = 8 << 20;
    let head = |path: &str, close: &str| {
        format!(
            "PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/zip\r\n{close}\
             content-length: {megabytes}\r\n\r\n"
        )
    };
    let body = vec![b'x'; megabytes];
    // Refused for its name, for its method, for its path: none of them looks at the body, and all of it is sent.
    for (path, status) in [("/v1/adapters/Not_A_Name", 400), ("/health/live", 405), ("/nothing", 404)] {
        let mut stream = wire.connect().await;
        stream.write_all(head(path, "connection: close\r\n").as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        assert_eq!(error_of(&rest_of(stream).await).0, status, "{path}");
    }
    // And the connection serves on.
    let mut stream = wire.connect().await;
    stream.write_all(head("/nothing", "").as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 404);
    stream.write_all(HEALTH).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 200);
}
