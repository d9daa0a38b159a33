use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{
    super::kit::{BAD, GOOD, Stage, end, say, server},
    chat, complete, says, with,
};
use crate::{domain::FinishReason, engine::Submission};

/// What reaches the engine.
async fn submitted(path: &str, body: Value) -> Vec<Submission> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let app = Stage::new().with_engine(move |arrival| {
        sink.lock().unwrap().push(arrival.submission.clone());
        say(&arrival, &[], "");
    });
    let answer = if path == "chat" { chat(&app, body).await } else { complete(&app, body).await };
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[tokio::test]
async fn a_completion_reads_as_openais() {
    let answer = complete(&server(), json!({"model": "sst2", "prompt": "sentence: a film"})).await;
    let mut json = answer.json();
    let id = format!("cmpl-{}", answer.header("x-request-id").unwrap());
    assert_eq!(json["id"].take(), id);
    assert!(json["created"].take().as_u64().unwrap() > 1_700_000_000);
    let fingerprint = json["system_fingerprint"].take();
    let digits: Vec<_> = fingerprint.as_str().unwrap().split('_').map(str::len).collect();
    assert_eq!(digits, [2, 12, 12], "{fingerprint}");
    let expected = json!({
        "id": null, "object": "text_completion", "created": null, "model": "sst2", "system_fingerprint": null,
        "choices": [{"index": 0, "text": "good", "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5,
                  "prompt_tokens_details": {"cached_tokens": 0, "virtual_tokens": 2}},
    });
    assert_eq!(json, expected);
    assert_eq!(answer.header("dept-ignored"), None);
    let bare = complete(&server(), json!({"model": "tiny", "prompt": "a"})).await.json();
    assert_eq!(bare["system_fingerprint"], format!("fp_{}", "0".repeat(12)));
}

#[tokio::test]
async fn a_chat_completion_reads_as_openais() {
    let answer = chat(&server(), says("a film")).await;
    let mut json = answer.json();
    let id = format!("chatcmpl-{}", answer.header("x-request-id").unwrap());
    assert_eq!(json["id"].take(), id);
    json["created"].take();
    let expected = json!({
        "id": null, "object": "chat.completion", "created": null, "model": "tiny",
        "system_fingerprint": "fp_000000000000",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "good", "refusal": null},
                     "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4,
                  "prompt_tokens_details": {"cached_tokens": 0, "virtual_tokens": 0}},
    });
    assert_eq!(json, expected);
    let silent = Stage::new().with_engine(|arrival| say(&arrival, &[], ""));
    assert_eq!(chat(&silent, says("a")).await.json()["choices"][0]["message"]["content"], "");
}

#[tokio::test]
async fn choices_of_all_prompts_are_numbered_through() {
    let app = Stage::new().with_engine(|arrival| {
        let good = arrival.submission.tokens.contains(&GOOD);
        say(&arrival, if good { &[(GOOD, "good")] } else { &[(BAD, "bad")] }, "");
    });
    let body = json!({"model": "tiny", "prompt": ["good", "a film"], "n": 2});
    let json = complete(&app, body).await.json();
    let choices: Vec<_> =
        json["choices"].as_array().unwrap().iter().map(|c| (c["index"].clone(), c["text"].clone())).collect();
    assert_eq!(
        choices,
        [
            (0.into(), "good".into()),
            (1.into(), "good".into()),
            (2.into(), "bad".into()),
            (3.into(), "bad".into())
        ]
    );
    let usage = &json["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(5), &json!(4)));
}

#[tokio::test]
async fn prompts_are_texts_or_ids_one_or_many() {
    let tokens = |prompt: Value| async move {
        let sent = submitted("completions", json!({"model": "tiny", "prompt": prompt})).await;
        sent.into_iter().map(|one| one.tokens).collect::<Vec<_>>()
    };
    assert_eq!(tokens(json!("a film")).await, [vec![7, 6, 1]]);
    assert_eq!(tokens(json!(["a", "film"])).await, [vec![7, 1], vec![6, 1]]);
    assert_eq!(tokens(json!([7, 6])).await, [vec![7, 6]]);
    assert_eq!(tokens(json!([[7, 6], [5]])).await, [vec![7, 6], vec![5]]);
}

#[tokio::test]
async fn the_defaults_are_openais() {
    let sent = submitted("completions", json!({"model": "tiny", "prompt": "a"})).await.swap_remove(0);
    assert_eq!((sent.sampling.temperature, sent.sampling.top_p, sent.max_tokens), (1.0, 1.0, 16));
    assert_eq!((sent.sampling.logprobs, sent.stop.len(), sent.min_tokens), (0, 0, 0));
    let sent = submitted("chat", says("a")).await.swap_remove(0);
    assert_eq!((sent.sampling.temperature, sent.max_tokens), (1.0, 64), "all the room there is");
    let carded = json!({"model": "sst2", "messages": [{"role": "user", "content": "a"}]});
    assert_eq!(submitted("chat", carded).await[0].max_tokens, 3, "the card knows better");
    let nulls = json!({"model": "tiny", "prompt": "a", "max_tokens": null, "temperature": null, "stop": null,
                       "logit_bias": null, "n": null, "stream": null, "stream_options": null, "logprobs": null});
    assert_eq!(submitted("completions", nulls).await[0].max_tokens, 16);
}

#[tokio::test]
async fn every_field_reaches_the_engine() {
    let all = json!({"model": "tiny", "prompt": "a", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "n": 2, "best_of": 2,
                     "stop": "x", "seed": 7, "logit_bias": {"4": -100, "3": 1.5}, "presence_penalty": 1,
                     "frequency_penalty": -1, "logprobs": 4, "user": "u", "top_k": 3, "min_p": 0.1,
                     "repetition_penalty": 1.1, "min_tokens": 2, "priority": -3, "timeout_ms": 60000,
                     "response_format": {"type": "text"}, "suffix": "", "echo": false});
    let sent = submitted("completions", all).await;
    let (s, p) = (&sent[0], &sent[0].sampling);
    assert_eq!((s.max_tokens, s.min_tokens, s.priority, &s.stop[..]), (9, 2, -3, &["x".to_owned()][..]));
    assert!(s.deadline.is_some());
    assert_eq!((p.temperature, p.top_k, p.top_p, p.min_p), (0.5, 3, 0.9, 0.1));
    assert_eq!((p.repetition_penalty, p.presence_penalty, p.frequency_penalty), (1.1, 1.0, -1.0));
    assert_eq!((p.logprobs, p.seed, sent[1].sampling.seed), (4, Some(7), Some(8)));
    assert_eq!(&p.logit_bias[..], [(3, 1.5), (4, -100.0)]);
    let edges =
        json!({"model": "tiny", "prompt": "a", "top_p": 0, "top_k": -1, "seed": -1, "stop": ["a", "b"]});
    let sent = submitted("completions", edges).await.swap_remove(0);
    assert_eq!((sent.sampling.top_p, sent.sampling.top_k), (f64::MIN_POSITIVE, 0));
    assert_eq!((sent.sampling.seed, sent.stop.len()), (Some(u64::MAX), 2));
    let more = json!({"max_completion_tokens": 5, "max_tokens": 5, "logprobs": true, "top_logprobs": 3, "tools": [],
                      "tool_choice": "none", "modalities": ["text"], "functions": null});
    let sent = submitted("chat", with(says("a"), more)).await.swap_remove(0);
    assert_eq!((sent.max_tokens, sent.sampling.logprobs), (5, 3));
}

#[tokio::test]
async fn the_ends_have_openais_names() {
    for (reason, word) in
        [(FinishReason::Stop, "stop"), (FinishReason::StopSequence, "stop"), (FinishReason::Length, "length")]
    {
        let app = Stage::new().with_engine(move |arrival| end(&arrival, &[], reason));
        let json = complete(&app, json!({"model": "tiny", "prompt": "a"})).await.json();
        assert_eq!(json["choices"][0]["finish_reason"], word);
    }
}

#[tokio::test]
async fn unknown_fields_are_named_and_nothing_else_happens() {
    let body = with(
        says("a"),
        json!({"store": false, "metadata": {"x": 1}, "stream": true, "stream_options": {"include_obfuscation": true}, "a,b\n": 1}),
    );
    let mut body =
        with(body, json!({"messages": [{"role": "user", "content": "a", "name": "me", "weight": 1}]}));
    let answer = chat(&server(), body.clone()).await;
    let named = "a?b?, messages.name, messages.weight, metadata, store, stream_options.include_obfuscation";
    assert_eq!((answer.status.as_u16(), answer.header("dept-ignored")), (200, Some(named)));
    body["stream"] = false.into();
    body.as_object_mut().unwrap().remove("stream_options");
    let answer = chat(&server(), body).await;
    assert_eq!(answer.header("dept-ignored"), Some("a?b?, messages.name, messages.weight, metadata, store"));
    let many: serde_json::Map<_, _> = (0..100).map(|i| (format!("field{i:03}"), i.into())).collect();
    let answer = complete(&server(), with(json!({"model": "tiny", "prompt": "a"}), many.into())).await;
    assert_eq!(answer.header("dept-ignored").unwrap().split(", ").count(), 32);
}

#[tokio::test]
async fn completion_log_probabilities_are_four_lists() {
    let app = Stage::new().with_engine(|arrival| say(&arrival, &[(GOOD, "good"), (BAD, " bad")], ""));
    let json = complete(&app, json!({"model": "tiny", "prompt": "a", "logprobs": 2})).await.json();
    let expected = json!({
        "tokens": ["good", "bad"], "token_logprobs": [-0.25, -0.25],
        "top_logprobs": [{"</s>": -2.5, "good": -0.25}, {"</s>": -2.5, "bad": -0.25}], "text_offset": [0, 4],
    });
    assert_eq!(json["choices"][0]["logprobs"], expected);
    let none = complete(&app, json!({"model": "tiny", "prompt": "a", "logprobs": 0})).await.json();
    let logprobs = &none["choices"][0]["logprobs"];
    assert_eq!(
        logprobs["top_logprobs"],
        json!([{"good": -0.25}, {"bad": -0.25}]),
        "the token itself is always there"
    );
}

#[tokio::test]
async fn chat_log_probabilities_have_bytes() {
    let json = chat(&server(), with(says("a"), json!({"logprobs": true, "top_logprobs": 2}))).await.json();
    let token = json!({"token": "good", "logprob": -0.25, "bytes": [103, 111, 111, 100], "top_logprobs": [
        {"token": "good", "logprob": -0.25, "bytes": [103, 111, 111, 100]},
        {"token": "</s>", "logprob": -2.5, "bytes": [60, 47, 115, 62]},
    ]});
    assert_eq!(json["choices"][0]["logprobs"], json!({"content": [token], "refusal": null}));
    let json = chat(&server(), with(says("a"), json!({"logprobs": true}))).await.json();
    assert_eq!(json["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test]
async fn the_longest_requests_are_measured_under_their_routes() {
    let stage = Stage::new();
    let metrics = stage.metrics();
    let app = stage.with_engine(|arrival| say(&arrival, &[], ""));
    complete(&app, json!({"model": "tiny", "prompt": "a"})).await;
    chat(&app, with(says("a"), json!({"stream": true}))).await;
    let text = metrics.render();
    for line in [
        r#"dept_requests_total{endpoint="/v1/completions",outcome="ok"} 1"#,
        r#"dept_requests_total{endpoint="/v1/chat/completions",outcome="ok"} 1"#,
        "dept_request_duration_seconds_count 2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
