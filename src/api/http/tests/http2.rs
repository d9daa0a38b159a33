//! The server loop over HTTP/2: streams that are not read, too many of them, resets.

use axum::{body::Bytes, http::Request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    kit::server,
    wire::{LAST_HEALTH, PATIENT, SOON, Wire, flood, staged},
};
use crate::{api::http::server::MAX_STREAMS, config::ConnectionLimits};

fn health() -> Request<()> {
    Request::get("http://localhost/health/live").body(()).unwrap()
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let wire = Wire::serve(server(), ConnectionLimits { idle_timeout: SOON, ..PATIENT }).await;
    let (mut send, connection) = h2::client::handshake(wire.connect().await).await.unwrap();
    let driver = tokio::spawn(connection);
    let (response, _) = send.send_request(health(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    let _ = driver.await.unwrap();
}

fn request_over_h2(body: &Value) -> (Request<()>, Bytes) {
    let request = Request::post("http://localhost/v1/generate").header("content-type", "application/json");
    (request.body(()).unwrap(), body.to_string().into())
}

#[tokio::test]
async fn an_http2_stream_that_is_not_read_is_ended_and_its_neighbours_are_not() {
    let (app, mut arrivals) = staged();
    let wire = Wire::serve(app, ConnectionLimits { stall_timeout: SOON, ..PATIENT }).await;
    let mut builder = h2::client::Builder::new();
    let (send, connection) = builder.initial_window_size(1000).handshake(wire.connect().await).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let (request, body) = request_over_h2(&json!({"prompt": "a", "stream": true}));
    let (response, mut upload) = send.send_request(request, false).unwrap();
    upload.send_data(body, true).unwrap();
    let arrival = arrivals.recv().await.unwrap();
    let unread = tokio::spawn(flood(arrival));
    let _held = response.await.unwrap();
    unread.await.unwrap();
    let (response, _) = send.send_request(health(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    driver.abort();
}

#[tokio::test]
async fn http2_streams_have_a_limit() {
    let wire = Wire::serve(server(), PATIENT).await;
    let (mut send, mut connection) = h2::client::handshake(wire.connect().await).await.unwrap();
    let (response, _) = send.send_request(health(), true).unwrap();
    let status = tokio::select! {
        response = response => response.unwrap().status(),
        ended = &mut connection => panic!("{ended:?}"),
    };
    assert_eq!((status.as_u16(), connection.max_concurrent_send_streams()), (200, MAX_STREAMS as usize));
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

/// The type, stream and payload of each whole frame.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let Some(payload) = bytes.get(9..9 + length) else { break };
        frames.push((bytes[3], payload.to_vec()));
        bytes = &bytes[9 + length..];
    }
    frames
}

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection_and_no_other() {
    let (app, mut arrivals) = staged();
    let wire = Wire::serve(app, PATIENT).await;
    let mut flood = [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
    // :method POST, :scheme http, :path /v1/generate, :authority localhost
    let mut head = vec![0x83, 0x86, 0x04, 12];
    head.extend(b"/v1/generate");
    head.extend([0x01, 9]);
    head.extend(b"localhost");
    for stream in (1..4000).step_by(2) {
        flood.extend(frame(1, 4, stream, &head));
        flood.extend(frame(3, 0, stream, &CANCEL));
    }
    let mut stream = wire.connect().await;
    // The server may close before all of it is sent.
    let _ = stream.write_all(&flood).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let (_, away) = frames(&bytes).into_iter().find(|(kind, _)| *kind == 7).expect("GOAWAY");
    assert_eq!(away[4..8], 11_u32.to_be_bytes(), "ENHANCE_YOUR_CALM");
    assert!(wire.say(LAST_HEALTH).await.starts_with("HTTP/1.1 200"));
    assert!(arrivals.try_recv().is_err(), "nothing of it reached the engine");
}

/// The head of a generation whose body is still to come, in HPACK.
fn open_head() -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // :method POST, :scheme http, :path, :authority, content-type
    let names: [&[u8]; 3] = [&[0x83, 0x86, 0x04], &[0x01], &[0x0f, 0x10]];
    let values = ["/v1/generate", "localhost", "application/json"].map(text);
    names.iter().zip(&values).flat_map(|(name, value)| [name, value.as_slice()].concat()).collect()
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_the_others_go_on() {
    let (app, mut arrivals) = staged();
    let wire = Wire::serve(app, PATIENT).await;
    let mut stream = wire.connect().await;
    let mut start = [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
    let over = 50;
    for number in 0..MAX_STREAMS + over {
        start.extend(frame(1, 4, 2 * number + 1, &open_head()));
    }
    stream.write_all(&start).await.unwrap();
    let refused = |bytes: &[u8]| {
        frames(bytes).into_iter().filter(|(kind, code)| *kind == 3 && code[..] == 7_u32.to_be_bytes()).count()
    };
    let mut bytes = Vec::new();
    while refused(&bytes) < over as usize {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "closed after {} refusals", refused(&bytes));
    }
    // The first one sends its body and is served.
    stream.write_all(&frame(0, 1, 1, br#"{"prompt": "a"}"#)).await.unwrap();
    assert!(arrivals.recv().await.is_some());
    assert_eq!(refused(&bytes), over as usize);
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_over_http2_too() {
    let wire = Wire::serve(server(), PATIENT).await;
    let (mut send, connection) = h2::client::handshake(wire.connect().await).await.unwrap();
    let driver = tokio::spawn(connection);
    let with = |bytes: usize| {
        Request::get("http://localhost/health/live").header("x-long", "a".repeat(bytes)).body(()).unwrap()
    };
    for (bytes, status) in [(30_000, 200), (40_000, 431)] {
        let (response, _) = send.send_request(with(bytes), true).unwrap();
        assert_eq!(response.await.unwrap().status(), status, "{bytes} bytes");
    }
    driver.abort();
}

#[tokio::test]
async fn a_head_without_end_ends_its_connection() {
    let wire = Wire::serve(server(), PATIENT).await;
    let mut flood = [PREFACE.to_vec(), frame(4, 0, 0, &[]), frame(1, 0, 1, &open_head())].concat();
    // x: aaa…, never indexed, again and again
    let field = [&[0x10, 1, b'x', 100][..], &[b'a'; 100]].concat();
    for _ in 0..200 {
        flood.extend(frame(9, 0, 1, &field.repeat(150)));
    }
    let mut stream = wire.connect().await;
    // The server may close before all of it is sent.
    let _ = stream.write_all(&flood).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    assert!(frames(&bytes).iter().all(|(kind, _)| *kind != 1), "no answer");
    assert!(wire.say(LAST_HEALTH).await.starts_with("HTTP/1.1 200"));
}
