//! The routes that OpenAI's clients call.

mod answers;
mod bad_input;
mod chat;
mod models;
mod scoring;
mod streaming;

use axum::{Router, body::Body, http::Request};
use serde_json::{Value, json};

use super::kit::{Answer, ask, post};

/// Posts to `/v1/completions`.
async fn complete(app: &Router, body: Value) -> Answer {
    ask(app, completion(body)).await
}

fn completion(body: Value) -> Request<Body> {
    post("/v1/completions", body.to_string())
}

/// Posts to `/v1/chat/completions`.
async fn chat(app: &Router, body: Value) -> Answer {
    ask(app, post("/v1/chat/completions", body.to_string())).await
}

/// A body of a chat in which the user says `text`.
fn says(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}]})
}

/// `body` with `more` in it.
fn with(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The chunks of a stream, which must end whole.
fn chunks(answer: &Answer) -> Vec<Value> {
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("text/event-stream")));
    let frames = answer.text().strip_suffix("data: [DONE]\n\n").unwrap().split("\n\n");
    let frames = frames.filter(|frame| !frame.is_empty());
    frames.map(|frame| serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap()).collect()
}
