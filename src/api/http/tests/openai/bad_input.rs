//! Every field, given wrongly: the answer's status, code, parameter and words.

use serde_json::json;

use super::{
    super::kit::{ask, post, server},
    chat, says, with,
};

const INVALID: &str = "invalid_request";

/// What is put into `{"model": "tiny", "prompt": "a"}`, the parameter at fault, what the message says.
const COMPLETIONS: &[(&str, &str, &str)] = &[
    (r#""temperature": "warm""#, "temperature", "invalid type: string"),
    (r#""temperature": -1"#, "temperature", "temperature is -1"),
    (r#""temperature": 101"#, "temperature", "0 (greedy) to 100"),
    (r#""top_p": 1.1"#, "top_p", "up to 1"),
    (r#""top_p": -0.1"#, "top_p", "up to 1"),
    (r#""n": 0"#, "n", "use 1 to 64"),
    (r#""n": 65"#, "n", "n is 65"),
    (r#""n": 5"#, "n", "one request takes 4"),
    (r#""n": "two""#, "n", "invalid type: string"),
    (r#""best_of": 2"#, "best_of", "2 choices to return 1"),
    (r#""n": 2, "best_of": 3"#, "best_of", "3 choices to return 2"),
    (r#""stop": 1"#, "stop", "expected a string or a list of strings"),
    (r#""stop": ["a", 1]"#, "stop", "expected a string or a list of strings"),
    (r#""stop": ["a", ""]"#, "stop[1]", "use 1 to 256"),
    (r#""seed": 1.5"#, "seed", "invalid type: floating point"),
    (r#""seed": "x""#, "seed", "invalid type: string"),
    (r#""logit_bias": {"a": 1}"#, "logit_bias", "'a' is not a token id"),
    (r#""logit_bias": {"-1": 1}"#, "logit_bias", "'-1' is not a token id"),
    (r#""logit_bias": {"1": "x"}"#, "logit_bias.1", "invalid type: string"),
    (r#""logit_bias": {"1": 101}"#, "logit_bias", "use -100 to 100"),
    (r#""logit_bias": {"1": 1, "01": 2}"#, "logit_bias", "token id 1 is there twice"),
    (r#""logit_bias": {"8": 1}"#, "logit_bias.8", "token id 8 is outside the vocabulary: ids are 0 to 7"),
    (r#""logit_bias": [1]"#, "logit_bias", "an object from token ids to numbers"),
    (r#""presence_penalty": 3"#, "presence_penalty", "-2 to 2"),
    (r#""frequency_penalty": -3"#, "frequency_penalty", "-2 to 2"),
    (r#""max_tokens": -1"#, "max_tokens", "-1"),
    (r#""max_tokens": 0"#, "max_tokens", "generates 1 to 64"),
    (r#""max_tokens": 65"#, "max_tokens", "generates 1 to 64"),
    (r#""min_tokens": 17"#, "min_tokens", "0 to max_tokens (16)"),
    (r#""logprobs": 21"#, "logprobs", "0 to 20"),
    (r#""logprobs": true"#, "logprobs", "invalid type: boolean"),
    (r#""echo": 1"#, "echo", "expected a boolean"),
    (r#""suffix": "end""#, "suffix", "can't be honoured"),
    (r#""stream": "yes""#, "stream", "expected a boolean"),
    (r#""stream_options": {"include_usage": true}"#, "stream_options", "set stream to true"),
    (
        r#""stream": true, "stream_options": {"include_usage": 1}"#,
        "stream_options.include_usage",
        "expected a boolean",
    ),
    (r#""stream": true, "stream_options": true"#, "stream_options", "invalid type: boolean"),
    (r#""response_format": {"type": "xml"}"#, "response_format.type", "`xml`"),
    (
        r#""response_format": {"type": "json_object", "json_schema": {}}"#,
        "response_format.json_schema",
        "json_schema goes with type json_schema",
    ),
    (r#""response_format": "json""#, "response_format", "invalid type: string"),
    (r#""response_format": {}"#, "response_format.type", "missing field"),
    (r#""user": 7"#, "user", "invalid type: integer"),
    (r#""top_k": -2"#, "top_k", "or -1 for all"),
    (r#""min_p": 2"#, "min_p", "0 to 1"),
    (r#""repetition_penalty": 0"#, "repetition_penalty", "1 is none"),
    (r#""truncate": "both""#, "truncate", "`both`"),
    (r#""timeout_ms": -1"#, "timeout_ms", "-1"),
    (r#""model": "tiny""#, "model", "duplicate field"),
];

#[tokio::test]
async fn each_wrong_field_of_a_completion_has_its_answer() {
    let app = server();
    for &(fields, param, words) in COMPLETIONS {
        let body = format!(r#"{{"model": "tiny", "prompt": "a", {fields}}}"#);
        let error = ask(&app, post("/v1/completions", body)).await.error();
        let found = (error.0, error.1.as_str(), error.2.as_str());
        assert_eq!(found, (400, INVALID, Some(param)), "{fields}: {}", error.3);
        assert!(error.3.contains(words), "{fields}: {}", error.3);
    }
}

#[tokio::test]
async fn each_wrong_prompt_and_model_has_its_answer() {
    let app = server();
    for (body, status, param, words) in [
        (r#"{"prompt": "a"}"#, 400, Some("model"), "model is missing"),
        (r#"{"model": "", "prompt": "a"}"#, 400, Some("model"), "model is missing"),
        (r#"{"model": null, "prompt": "a"}"#, 400, Some("model"), "GET /v1/models"),
        (r#"{"model": 1, "prompt": "a"}"#, 400, Some("model"), "invalid type: integer"),
        (r#"{"model": "nope", "prompt": "a"}"#, 404, Some("model"), "there is no model 'nope'"),
        (r#"{"model": "tiny"}"#, 400, Some("prompt"), "prompt is missing: send some text"),
        (r#"{"model": "tiny", "prompt": ""}"#, 400, Some("prompt"), "prompt is empty"),
        (r#"{"model": "tiny", "prompt": []}"#, 400, Some("prompt"), "prompt is empty"),
        (r#"{"model": "tiny", "prompt": ["a", ""]}"#, 400, Some("prompt[1]"), "is empty"),
        (r#"{"model": "tiny", "prompt": [[]]}"#, 400, Some("prompt"), "no tokens"),
        (r#"{"model": "tiny", "prompt": [[1], []]}"#, 400, Some("prompt[1]"), "no tokens"),
        (r#"{"model": "tiny", "prompt": [[1], "a"]}"#, 400, Some("prompt[1]"), "expected a sequence"),
        (r#"{"model": "tiny", "prompt": [[1], [8]]}"#, 400, Some("prompt[1][0]"), "token id 8"),
        (r#"{"model": "tiny", "prompt": [[-1]]}"#, 400, Some("prompt[0]"), "expected a string or a token id"),
        (
            r#"{"model": "tiny", "prompt": {"a": 1}}"#,
            400,
            Some("prompt"),
            "expected a string, a list of strings",
        ),
        (r#"{"model": "sst2", "prompt": "a a a a a a"}"#, 422, Some("prompt"), "takes s = 6"),
        (r#"{"model": "tiny", "prompt": "a""#, 400, None, "EOF"),
        (r#"["tiny", "a"]"#, 400, None, "send an object with named fields"),
        ("", 400, None, "EOF"),
    ] {
        let error = ask(&app, post("/v1/completions", body)).await.error();
        assert_eq!((error.0, error.2.as_str()), (status, param), "{body}: {}", error.3);
        assert!(error.3.contains(words), "{body}: {}", error.3);
    }
}

#[tokio::test]
async fn each_wrong_field_of_a_chat_has_its_answer() {
    let app = server();
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    for (fields, param, words) in [
        (json!({"messages": []}), "messages", "send at least one"),
        (json!({"messages": null}), "messages", "send at least one"),
        (json!({"messages": "hi"}), "messages", "invalid type: string"),
        (json!({"messages": ["hi"]}), "messages[0]", "invalid type: string"),
        (json!({"messages": [{"content": "a"}]}), "messages[0].role", "the role is missing"),
        (json!({"messages": [{"role": "robot", "content": "a"}]}), "messages[0].role", "is 'robot': use"),
        (
            json!({"messages": [{"role": "tool", "content": "a", "tool_call_id": "x"}]}),
            "messages[0].role",
            "messages of a tool",
        ),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content", "the content is missing"),
        (
            json!({"messages": [{"role": "user", "content": 1}]}),
            "messages[0].content",
            "expected a string or a list of parts",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            "messages[0].content[0]",
            "parts of type 'image_url'",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_audio"}]}]}),
            "messages[0].content[1]",
            "parts of type 'input_audio'",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages[0].content[0].text",
            "missing",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": tool}]}),
            "messages[0].tool_calls",
            "can't be honoured",
        ),
        (
            json!({"messages": [{"role": "assistant", "audio": {"id": "x"}}]}),
            "messages[0].audio",
            "can't be honoured",
        ),
        (json!({"tools": tool}), "tools", "can't be honoured"),
        (json!({"functions": tool}), "functions", "can't be honoured"),
        (json!({"tool_choice": "required"}), "tool_choice", "can't be honoured"),
        (json!({"tool_choice": {"type": "function"}}), "tool_choice", "can't be honoured"),
        (json!({"function_call": {"name": "f"}}), "function_call", "can't be honoured"),
        (json!({"modalities": ["text", "audio"]}), "modalities", "'audio'"),
        (json!({"audio": {"voice": "x"}}), "audio", "ask for text"),
        (json!({"web_search_options": {"x": 1}}), "web_search_options", "can't be honoured"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
            "response_format.json_schema.schema",
            "is missing: send the schema",
        ),
        (json!({"logprobs": 1}), "logprobs", "invalid type: integer"),
        (json!({"top_logprobs": 2}), "top_logprobs", "set logprobs to true"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs", "use 0 to 20"),
        (json!({"max_tokens": 3, "max_completion_tokens": 4}), "max_tokens", "send one of them"),
        (json!({"max_tokens": 0}), "max_tokens", "max_tokens is 0"),
        (
            json!({"max_completion_tokens": 65}),
            "max_completion_tokens",
            "max_completion_tokens is 65: model 'tiny' generates 1 to 64",
        ),
        (json!({"n": 0}), "n", "use 1 to 64"),
        (json!({"stream_options": {}}), "stream_options", "set stream to true"),
    ] {
        let error = chat(&app, with(says("a"), fields.clone())).await.error();
        let found = (error.0, error.1.as_str(), error.2.as_str());
        assert_eq!(found, (400, INVALID, Some(param)), "{fields}: {}", error.3);
        assert!(error.3.contains(words), "{fields}: {}", error.3);
    }
}

#[tokio::test]
async fn bodies_are_json_within_their_limits() {
    let app = server();
    for path in ["/v1/completions", "/v1/chat/completions"] {
        let mut plain = post(path, "{}");
        plain.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        assert_eq!(ask(&app, plain).await.error().0, 415);
        assert_eq!(ask(&app, post(path, vec![b' '; (1 << 20) + 1])).await.error().0, 413);
        assert_eq!(ask(&app, post(path, format!("{{\"x\": {}", "[".repeat(100_000)))).await.error().0, 400);
        assert_eq!(ask(&app, post(path, "{\"model\": \"\u{0}\"}")).await.error().0, 400);
        assert_eq!(ask(&app, super::super::kit::get(path)).await.error().0, 405);
    }
}
