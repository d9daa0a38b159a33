//! From a conversation to tokens.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{
    super::kit::{Stage, say},
    chat, says,
};

/// The tokens of a conversation for the model on `stage`.
async fn read(stage: Stage, messages: Value) -> Vec<u32> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let app = stage.with_engine(move |arrival| {
        sink.lock().unwrap().clone_from(&arrival.submission.tokens);
        say(&arrival, &[], "");
    });
    let answer = chat(&app, json!({"model": "tiny", "messages": messages})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[tokio::test]
async fn a_template_writes_the_whole_conversation_and_no_token_is_added() {
    let template = "{% for m in messages %}{{ m.role == 'user' and 'sentence:' or 'a' }} {{ m.content }} {% endfor %}</s>";
    let messages = json!([
        {"role": "developer", "content": "bad"}, {"role": "user", "content": [{"type": "text", "text": "good"}, {"type": "text", "text": "film"}]},
        {"role": "assistant", "content": null}, {"role": "user", "content": "good", "tool_calls": null},
    ]);
    assert_eq!(read(Stage::causal().chatting(template), messages.clone()).await, [7, 4, 5, 3, 6, 7, 5, 3, 1]);
    assert_eq!(read(Stage::new().chatting(template), messages).await, [7, 4, 5, 3, 6, 7, 5, 3, 1]);
}

#[tokio::test]
async fn an_encoder_decoder_without_a_template_reads_what_the_user_said_last() {
    let messages = json!([
        {"role": "system", "content": "bad"}, {"role": "user", "content": "good"}, {"role": "user", "content": "a film"},
        {"role": "assistant", "content": "bad"},
    ]);
    assert_eq!(read(Stage::new(), messages).await, [7, 6, 1]);
}

#[tokio::test]
async fn what_no_template_can_write_is_refused() {
    let refused = |stage: Stage, body: Value| async move {
        let error = chat(&stage.with_engine(|_| unreachable!()), body).await.error();
        assert_eq!((error.0, error.1.as_str(), error.2.as_str()), (400, "invalid_request", Some("messages")));
        error.3
    };
    let message = refused(Stage::causal(), says("a")).await;
    assert!(message.contains("model 'tiny' has no chat template: use /v1/completions"), "{message}");
    let message = refused(Stage::causal().chatting("{% if"), says("a")).await;
    assert!(message.contains("the model's chat template can't be used"), "{message}");
    let message =
        refused(Stage::causal().chatting("{{ raise_exception('roles must alternate') }}"), says("a")).await;
    assert!(message.ends_with("refuses the conversation: roles must alternate"), "{message}");
    let message = refused(Stage::causal().chatting("{{ messages.a.b }}"), says("a")).await;
    assert!(message.contains("fails on the conversation"), "{message}");
    let message = refused(Stage::causal().chatting(""), says("a")).await;
    assert!(message.contains("no tokens"), "{message}");
    let rules = json!({"model": "tiny", "messages": [{"role": "system", "content": "a"}]});
    let message = refused(Stage::new(), rules).await;
    assert!(message.contains("send a user's message"), "{message}");
}

#[tokio::test]
async fn a_conversation_that_is_too_long_is_refused_or_cut() {
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let long = ["a"; 70].join(" ");
    let app = Stage::causal().chatting(template).with_engine(|arrival| say(&arrival, &[], ""));
    let error = chat(&app, says(&long)).await.error();
    assert_eq!((error.0, error.1.as_str(), error.2.as_str()), (422, "input_too_long", Some("messages")));
    let cut = super::with(says(&long), json!({"truncate": "left"}));
    assert_eq!(
        chat(&app, cut).await.json()["usage"]["prompt_tokens"],
        44,
        "20 tokens are left for the answer"
    );
    let room = super::with(says(&long), json!({"truncate": "left", "max_completion_tokens": 4}));
    assert_eq!(chat(&app, room).await.json()["usage"]["prompt_tokens"], 60);
}
