use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use axum::body::Body;
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::kit::{Answer, BAD, GOOD, Stage, fail, generate, post, say, server, token};
use crate::{
    domain::{SequenceError, TokenEvent},
    engine::{Arrival, Command},
};

/// The `data:` lines of a stream, each of which must be a frame of its own.
fn frames(answer: &Answer) -> Vec<&str> {
    let text = answer.text();
    assert!(text.ends_with("\n\n"), "{text}");
    let frames = text.trim_end_matches('\n').split("\n\n");
    frames.map(|frame| frame.strip_prefix("data: ").unwrap()).collect()
}

fn json_of(frame: &str) -> Value {
    serde_json::from_str(frame).unwrap()
}

fn arrival(inbox: &mpsc::Receiver<Command>) -> Arrival {
    match inbox.recv().unwrap() {
        Command::Submit(arrival) => *arrival,
        Command::Drain { .. } => unreachable!(),
    }
}

#[tokio::test]
async fn frames_are_tokens_then_the_whole_then_done() {
    let app = Stage::new().with_engine(|a| say(&a, &[(GOOD, "good"), (GOOD, ""), (BAD, " bad")], " b"));
    let body = json!({"adapter": "sst2", "prompt": "a film", "stream": true});
    let answer = generate(&app, body.clone()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let frames = frames(&answer);
    assert_eq!(frames[0], r#"{"index":0,"position":0,"token":{"id":3,"text":"good"}}"#);
    assert_eq!(frames[1], r#"{"index":0,"position":1,"token":{"id":3,"text":""}}"#);
    assert_eq!(frames[2], r#"{"index":0,"position":2,"token":{"id":4,"text":" bad"}}"#);
    assert_eq!(frames[3], r#"{"index":0,"position":3,"token":{"id":null,"text":" b"}}"#);
    assert_eq!(frames[5..], ["[DONE]"]);

    let whole = json_of(frames[4]);
    let joined: String =
        frames[..4].iter().map(|f| json_of(f)["token"]["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(whole["text"].as_str(), Some(joined.as_str()));
    let mut plain = body;
    plain["stream"] = false.into();
    let mut plain = generate(&app, plain).await.json();
    plain["id"] = whole["id"].clone();
    assert_eq!(whole, plain, "the last frame is the response that is not streamed");
}

#[tokio::test]
async fn log_probabilities_are_streamed_too() {
    let answer = generate(&server(), json!({"prompt": "a", "stream": true, "logprobs": 1})).await;
    let first = r#"{"index":0,"position":0,"token":{"id":3,"text":"good","logprob":-0.25,"top":[{"id":3,"text":"good","logprob":-0.25}]}}"#;
    assert_eq!(frames(&answer)[0], first);
}

#[tokio::test]
async fn choices_and_batches_say_whose_token_it_is() {
    let app = server();
    let answer = generate(&app, json!({"prompt": ["a", "a"], "n": 2, "stream": true})).await;
    let frames = frames(&answer);
    let mut places: Vec<_> = frames[..4]
        .iter()
        .map(|frame| (json_of(frame)["result"].as_u64().unwrap(), json_of(frame)["index"].as_u64().unwrap()))
        .collect();
    places.sort_unstable();
    assert_eq!(places, [(0, 0), (0, 1), (1, 0), (1, 1)]);
    assert_eq!(json_of(frames[4])["results"][1]["choices"][1]["text"], "good");
    assert_eq!(frames[5], "[DONE]");
}

#[tokio::test]
async fn a_failure_is_the_last_word() {
    let app = Stage::new().with_engine(|arrival| {
        let _ = arrival.events.send(TokenEvent::Token(token(&arrival, GOOD, "good")));
        fail(&arrival, SequenceError::Draining);
    });
    let answer = generate(&app, json!({"prompt": "a", "stream": true})).await;
    let frames = frames(&answer);
    assert_eq!(frames.len(), 2);
    let error = &json_of(frames[1])["error"];
    assert_eq!(error["code"], "draining");
    assert_eq!(error["request_id"].as_str(), answer.header("x-request-id"));
}

#[tokio::test]
async fn an_engine_that_falls_silent_is_an_internal_error() {
    let app = Stage::new().with_engine(drop);
    let answer = generate(&app, json!({"prompt": "a", "stream": true})).await;
    assert_eq!(json_of(frames(&answer)[0])["error"]["code"], "internal");
    assert_eq!(generate(&app, json!({"prompt": "a"})).await.error().0, 500);
}

#[tokio::test]
async fn a_refused_request_is_no_stream() {
    let answer = generate(&server(), json!({"prompt": "", "stream": true})).await;
    assert_eq!(answer.error().0, 400);
}

#[tokio::test]
async fn an_idle_stream_is_kept_open_by_comments() {
    let mut stage = Stage::new();
    stage.options.ping_interval = Duration::from_millis(1);
    let (app, inbox) = stage.quiet();
    let response = app.oneshot(post("/v1/generate", r#"{"prompt": "a", "stream": true}"#)).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), ": ping\n\n");
    say(&arrival(&inbox), &[], "");
    let mut rest = String::new();
    while let Some(chunk) = body.next().await {
        rest += std::str::from_utf8(&chunk.unwrap()).unwrap();
    }
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_sequences() {
    let stage = Stage::new();
    let metrics = stage.metrics();
    let (app, inbox) = stage.quiet();
    let response = app
        .clone()
        .oneshot(post("/v1/generate", r#"{"prompt": "a", "n": 2, "stream": true}"#))
        .await
        .unwrap();
    let arrivals = [arrival(&inbox), arrival(&inbox)];
    let mut body = response.into_body().into_data_stream();
    arrivals[0].events.send(TokenEvent::Token(token(&arrivals[0], GOOD, "good"))).unwrap();
    assert!(body.next().await.is_some());
    assert!(!arrivals[0].events.is_closed() && !arrivals[1].events.is_closed());
    drop(body);
    assert!(arrivals[0].events.is_closed() && arrivals[1].events.is_closed());
    let count = r#"dept_requests_total{endpoint="/v1/generate",outcome="cancelled"} 1"#;
    assert!(metrics.render().contains(count), "{}", metrics.render());
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_answer_cancels_too() {
    let (app, inbox) = Stage::new().quiet();
    let waiting = tokio::spawn(app.oneshot(post("/v1/generate", r#"{"prompt": "a"}"#)));
    let arrival = tokio::task::spawn_blocking(move || arrival(&inbox)).await.unwrap();
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    arrival.events.closed().await;
}

#[tokio::test]
async fn one_failed_choice_cancels_the_others() {
    let (app, inbox) = Stage::new().quiet();
    let waiting = tokio::spawn(app.oneshot(post("/v1/generate", Body::from(r#"{"prompt": "a", "n": 2}"#))));
    let inbox = Arc::new(std::sync::Mutex::new(inbox));
    let arrivals = tokio::task::spawn_blocking(move || {
        let inbox = inbox.lock().unwrap();
        [arrival(&inbox), arrival(&inbox)]
    });
    let [first, second] = arrivals.await.unwrap();
    fail(&second, SequenceError::Internal);
    let answer = Answer::of(waiting.await.unwrap().unwrap()).await;
    assert_eq!(answer.error().1, "internal");
    first.events.closed().await;
}
