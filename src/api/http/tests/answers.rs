use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::kit::{BAD, GOOD, Stage, generate, say, server};
use crate::engine::Submission;

/// What reaches the engine for a body.
async fn submitted(body: Value) -> Vec<Submission> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let app = Stage::new().with_engine(move |arrival| {
        sink.lock().unwrap().push(arrival.submission.clone());
        say(&arrival, &[], "");
    });
    let answer = generate(&app, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[tokio::test]
async fn a_whole_answer() {
    let answer = generate(&server(), json!({"adapter": "sst2", "prompt": "sentence: a film"})).await;
    assert_eq!(answer.status, 200);
    let mut json = answer.json();
    assert_eq!(json["id"].as_str(), answer.header("x-request-id"));
    assert!(json["adapter_version"].as_str().unwrap().starts_with("sha256:"));
    json["id"].take();
    json["adapter_version"].take();
    let expected = json!({
        "id": null, "model": "tiny", "adapter": "sst2", "adapter_version": null, "text": "good",
        "label": "positive", "finish_reason": "stop",
        "usage": {"prompt_tokens": 4, "virtual_tokens": 2, "completion_tokens": 1, "cached_tokens": 0},
        "timings": {"queue_ms": 1.0, "prefill_ms": 2.0, "decode_ms": 4.0, "total_ms": 7.0},
    });
    assert_eq!(json, expected);
    let order: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let contract =
        ["id", "model", "adapter", "adapter_version", "text", "label", "finish_reason", "usage", "timings"];
    assert_eq!(order, contract);
}

#[tokio::test]
async fn the_bare_backbone_has_no_label() {
    let json = generate(&server(), json!({"adapter": null, "prompt": "a film"})).await.json();
    assert_eq!((&json["adapter"], &json["adapter_version"]), (&Value::Null, &Value::Null));
    assert!(json.get("label").is_none() && json.get("tokens").is_none());
    assert_eq!(json["usage"]["virtual_tokens"], 0);
}

#[tokio::test]
async fn log_probabilities_come_with_their_tokens() {
    let json = generate(&server(), json!({"prompt": "a", "logprobs": 2})).await.json();
    let top =
        json!([{"id": 3, "text": "good", "logprob": -0.25}, {"id": 1, "text": "</s>", "logprob": -2.5}]);
    assert_eq!(json["tokens"], json!([{"id": 3, "text": "good", "logprob": -0.25, "top": top}]));
}

#[tokio::test]
async fn choices_are_in_order_and_the_prompt_counts_once() {
    let app = Stage::new().with_engine(|arrival| {
        let bad = arrival.submission.sampling.seed == Some(8);
        say(&arrival, if bad { &[(BAD, "bad"), (GOOD, " good")] } else { &[(GOOD, "good")] }, "");
    });
    let json = generate(&app, json!({"adapter": "sst2", "prompt": "a", "n": 2, "seed": 7})).await.json();
    let choices = json!([
        {"index": 0, "text": "good", "label": "positive", "finish_reason": "stop"},
        {"index": 1, "text": "bad good", "finish_reason": "stop"},
    ]);
    assert_eq!(json["choices"], choices);
    assert!(json.get("text").is_none());
    let usage = json!({"prompt_tokens": 2, "virtual_tokens": 2, "completion_tokens": 3, "cached_tokens": 0});
    assert_eq!(json["usage"], usage);
}

#[tokio::test]
async fn a_batch_comes_back_in_order() {
    let app = Stage::new().with_engine(|arrival| {
        let good = arrival.submission.tokens.contains(&GOOD);
        say(&arrival, if good { &[(GOOD, "good")] } else { &[(BAD, "bad")] }, "");
    });
    let json = generate(&app, json!({"prompt": ["bad", "good film", "a"]})).await.json();
    let texts: Vec<_> = json["results"].as_array().unwrap().iter().map(|r| r["text"].clone()).collect();
    assert_eq!(texts, ["bad", "good", "bad"]);
    assert_eq!(json["results"][1]["usage"]["prompt_tokens"], 3);
    assert_eq!(json["usage"]["prompt_tokens"], 7);
    assert!(json.get("text").is_none());
    let one = generate(&app, json!({"prompt": ["good"]})).await.json();
    assert_eq!(one["results"].as_array().unwrap().len(), 1, "a list of one is still a list");
}

#[tokio::test]
async fn held_back_text_belongs_to_the_answer() {
    let app = Stage::new().with_engine(|arrival| say(&arrival, &[(GOOD, "good")], " b"));
    let json = generate(&app, json!({"prompt": "a", "stop": [" bad"], "logprobs": 1})).await.json();
    assert_eq!((&json["text"], &json["tokens"][0]["text"]), (&json!("good b"), &json!("good b")));
}

#[tokio::test]
async fn the_template_makes_the_prompt() {
    let by_inputs = submitted(json!({"adapter": "sst2", "inputs": {"text": "a film"}})).await;
    let by_prompt = submitted(json!({"adapter": "sst2", "prompt": "sentence: a film"})).await;
    assert_eq!(by_inputs[0].tokens, [5, 7, 6, 1]);
    assert_eq!(by_inputs[0].tokens, by_prompt[0].tokens);
    assert_eq!(by_inputs[0].adapter.as_ref().unwrap().name().as_str(), "sst2");
}

#[tokio::test]
async fn ids_are_used_as_they_are() {
    assert_eq!(submitted(json!({"prompt": [5, 7, 6]})).await[0].tokens, [5, 7, 6]);
}

#[tokio::test]
async fn truncation_is_the_requests_then_the_cards() {
    let prompt = "sentence: a a a a film good";
    let cut = |adapter: &'static str, truncate: Value| async move {
        let body = json!({"adapter": adapter, "prompt": prompt, "truncate": truncate});
        submitted(body).await.swap_remove(0).tokens
    };
    assert_eq!(cut("sst2", json!("right")).await, [5, 7, 7, 7, 7, 1]);
    assert_eq!(cut("sst2", json!("left")).await, [7, 7, 7, 6, 3, 1]);
    assert_eq!(cut("cut", json!(null)).await, [5, 7, 7, 7, 7, 1]);
    let refused = json!({"adapter": "cut", "prompt": prompt, "truncate": "error"});
    assert_eq!(generate(&server(), refused).await.status, 422);
}

#[tokio::test]
async fn defaults_are_the_cards_then_the_contracts() {
    assert_eq!(submitted(json!({"prompt": "a"})).await[0].max_tokens, 20);
    assert_eq!(submitted(json!({"adapter": "sst2", "prompt": "a"})).await[0].max_tokens, 3);
    let all = json!({"adapter": "sst2", "prompt": "a", "max_tokens": 9, "min_tokens": 2, "temperature": 0.5,
                     "top_k": 3, "top_p": 0.9, "min_p": 0.1, "seed": 18446744073709551615_u64, "n": 2,
                     "repetition_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": -1,
                     "stop": ["x"], "logprobs": 4, "priority": -3, "timeout_ms": 18446744073709551615_u64,
                     "user": "u", "stream": false, "truncate": "left"});
    let sent = submitted(all).await;
    let s = &sent[0];
    assert_eq!(
        (s.max_tokens, s.min_tokens, s.priority, s.stop.as_slice()),
        (9, 2, -3, &["x".to_owned()][..])
    );
    let p = &s.sampling;
    assert_eq!((p.temperature, p.top_k, p.top_p, p.min_p), (0.5, 3, 0.9, 0.1));
    assert_eq!((p.repetition_penalty, p.presence_penalty, p.frequency_penalty), (1.1, 1.0, -1.0));
    assert_eq!((p.logprobs, p.seed, sent[1].sampling.seed), (4, Some(u64::MAX), Some(0)));
}

#[tokio::test]
async fn a_seed_is_drawn_where_none_is_given() {
    let sent = submitted(json!({"prompt": ["a", "a"], "n": 2})).await;
    let seeds: Vec<u64> = sent.iter().map(|s| s.sampling.seed.unwrap()).collect();
    assert_eq!(seeds[1], seeds[0].wrapping_add(1));
    assert_ne!(seeds[0], seeds[2]);
}

#[tokio::test]
async fn a_deadline_is_set_where_one_is_wanted() {
    assert!(submitted(json!({"prompt": "a", "timeout_ms": 0})).await[0].deadline.is_none());
    assert!(submitted(json!({"prompt": "a", "timeout_ms": 60000})).await[0].deadline.is_some());
}
