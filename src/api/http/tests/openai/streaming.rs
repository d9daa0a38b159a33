use serde_json::{Value, json};

use super::{
    super::kit::{BAD, GOOD, Stage, fail, say, server, token},
    chat, chunks, complete, says, with,
};
use crate::domain::{SequenceError, TokenEvent};

fn choices(chunks: &[Value]) -> Vec<Value> {
    chunks.iter().map(|chunk| chunk["choices"][0].clone()).collect()
}

#[tokio::test]
async fn a_chat_begins_with_its_role_and_ends_with_its_reason() {
    let app = Stage::new().with_engine(|a| say(&a, &[(GOOD, "good"), (GOOD, ""), (BAD, " bad")], " b"));
    let answer = chat(&app, with(says("a"), json!({"stream": true}))).await;
    let chunks = chunks(&answer);
    let delta = |delta: Value| json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": null});
    let expected = [
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"content": "good"})),
        delta(json!({"content": " bad"})),
        delta(json!({"content": " b"})),
        json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"}),
    ];
    assert_eq!(choices(&chunks), expected);
    let keys: Vec<_> = chunks[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "object", "created", "model", "system_fingerprint", "choices"]);
    let id = format!("chatcmpl-{}", answer.header("x-request-id").unwrap());
    assert!(chunks.iter().all(|chunk| chunk["id"] == id && chunk["object"] == "chat.completion.chunk"));
}

#[tokio::test]
async fn usage_comes_last_where_it_is_wanted() {
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let usage = json!({"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3,
                       "prompt_tokens_details": {"cached_tokens": 0, "virtual_tokens": 0}});
    let body = json!({"model": "tiny", "prompt": "a"});
    for answer in [
        chat(&server(), with(says("a"), options.clone())).await,
        complete(&server(), with(body, options.clone())).await,
    ] {
        let chunks = chunks(&answer);
        let (last, others) = chunks.split_last().unwrap();
        assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &usage));
        assert!(others.iter().all(|chunk| chunk.as_object().unwrap().get("usage") == Some(&Value::Null)));
    }
}

#[tokio::test]
async fn completions_are_streamed_by_prompt_and_choice() {
    let body = json!({"model": "tiny", "prompt": ["a", "film"], "n": 2, "stream": true});
    let chunks = chunks(&complete(&server(), body).await);
    for index in 0..4 {
        let of: Vec<_> = choices(&chunks).into_iter().filter(|choice| choice["index"] == index).collect();
        let expected = [
            json!({"index": index, "text": "good", "logprobs": null, "finish_reason": null}),
            json!({"index": index, "text": "", "logprobs": null, "finish_reason": "stop"}),
        ];
        assert_eq!(of, expected);
    }
    assert_eq!(chunks.len(), 8);
}

#[tokio::test]
async fn choices_of_a_chat_have_a_role_each() {
    let chunks = chunks(&chat(&server(), with(says("a"), json!({"stream": true, "n": 2}))).await);
    let roles: Vec<_> =
        choices(&chunks[..2]).iter().map(|c| (c["index"].clone(), c["delta"]["role"].clone())).collect();
    assert_eq!(roles, [(0.into(), "assistant".into()), (1.into(), "assistant".into())]);
    assert_eq!(chunks.len(), 6);
}

#[tokio::test]
async fn log_probabilities_come_with_their_tokens() {
    let more = json!({"stream": true, "logprobs": true, "top_logprobs": 1});
    let chunks = chunks(&chat(&server(), with(says("a"), more)).await);
    let token = json!({"token": "good", "logprob": -0.25, "bytes": [103, 111, 111, 100]});
    let expected =
        json!({"content": [with(token.clone(), json!({"top_logprobs": [token]}))], "refusal": null});
    assert_eq!(chunks[1]["choices"][0]["logprobs"], expected);
    let app = Stage::new().with_engine(|a| say(&a, &[(GOOD, "good"), (BAD, " bad")], ""));
    let body = json!({"model": "tiny", "prompt": "a", "logprobs": 1, "stream": true});
    let chunks = super::chunks(&complete(&app, body).await);
    let offsets: Vec<_> = choices(&chunks).iter().map(|c| c["logprobs"]["text_offset"].clone()).collect();
    assert_eq!(offsets, [json!([0]), json!([4]), Value::Null]);
}

#[tokio::test]
async fn a_failure_on_the_way_is_the_last_word() {
    let app = Stage::new().with_engine(|arrival| {
        let _ = arrival.events.send(TokenEvent::Token(token(&arrival, GOOD, "good")));
        fail(&arrival, SequenceError::Internal);
    });
    let answer = chat(&app, with(says("a"), json!({"stream": true}))).await;
    assert_eq!(answer.status, 200);
    let last = answer.text().trim_end().rsplit("\n\n").next().unwrap().strip_prefix("data: ").unwrap();
    let error: Value = serde_json::from_str(last).unwrap();
    assert_eq!(error["error"]["code"], "internal");
    assert_eq!(error["error"]["request_id"].as_str(), answer.header("x-request-id"));
}
