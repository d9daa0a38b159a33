use axum::body::Body;
use serde_json::json;

use super::kit::{ask, generate, post, server};

/// A body, then status, code and param of the answer, and a part of its message.
type Case = (&'static str, u16, &'static str, Option<&'static str>, &'static str);

const INVALID: &str = "invalid_request";

const CASES: &[Case] = &[
    (r#"{"adapter": "nope", "prompt": "a"}"#, 404, "adapter_not_found", Some("adapter"), "'nope'"),
    (
        r#"{"adapter": "sst2@000000000000", "prompt": "a"}"#,
        404,
        "adapter_not_found",
        Some("adapter"),
        "version 000000000000",
    ),
    (r#"{"adapter": "../x", "prompt": "a"}"#, 400, INVALID, Some("adapter"), "'../x' is not an adapter name"),
    (r#"{"adapter": "a@1", "prompt": "a"}"#, 400, INVALID, Some("adapter"), "'1' is not an adapter version"),
    (r#"{"prompt": "a", "max_token": 3}"#, 400, INVALID, Some("max_token"), "unknown field `max_token`"),
    (r#"{"prompt": "a", "prompt": "b"}"#, 400, INVALID, Some("prompt"), "duplicate field"),
    (r#"{"prompt": ""}"#, 400, INVALID, Some("prompt"), "empty"),
    (r#"{"prompt": []}"#, 400, INVALID, Some("prompt"), "empty"),
    (r#"{"prompt": ["a", ""]}"#, 400, INVALID, Some("prompt[1]"), "empty"),
    (r#"{}"#, 400, INVALID, Some("prompt"), "missing"),
    (r#"{"prompt": null}"#, 400, INVALID, Some("prompt"), "missing"),
    (r#"{"prompt": "a", "inputs": {"text": "a"}}"#, 400, INVALID, Some("inputs"), "exclude each other"),
    (
        r#"{"prompt": 5}"#,
        400,
        INVALID,
        Some("prompt"),
        "a string, a list of strings, a list of token ids, or a list of lists of them",
    ),
    (r#"{"prompt": {"a": 1}}"#, 400, INVALID, Some("prompt"), "invalid type: map"),
    (r#"{"prompt": ["a", 1]}"#, 400, INVALID, Some("prompt[1]"), "expected a string"),
    (r#"{"prompt": [1, "a"]}"#, 400, INVALID, Some("prompt[1]"), "expected u32"),
    (r#"{"prompt": [1.5]}"#, 400, INVALID, Some("prompt[0]"), "expected a string or a token id"),
    (r#"{"prompt": [-1]}"#, 400, INVALID, Some("prompt[0]"), "expected a string or a token id"),
    (
        r#"{"prompt": [3, 8]}"#,
        400,
        INVALID,
        Some("prompt[1]"),
        "token id 8 is outside the vocabulary: ids are 0 to 7",
    ),
    (r#"{"inputs": {"text": "a"}}"#, 400, INVALID, Some("inputs"), "need an adapter"),
    (r#"{"adapter": "pt", "inputs": {"text": "a"}}"#, 400, INVALID, Some("inputs"), "no template"),
    (r#"{"adapter": "sst2", "inputs": {}}"#, 400, INVALID, Some("inputs"), "empty"),
    (r#"{"adapter": "sst2", "inputs": {"txt": "a"}}"#, 400, INVALID, Some("inputs"), "missing"),
    (r#"{"adapter": "sst2", "inputs": {"text": 1}}"#, 400, INVALID, Some("inputs.text"), "expected a string"),
    (
        r#"{"adapter": "sst2", "inputs": {"text": "a", "text": "b"}}"#,
        400,
        INVALID,
        Some("inputs.text"),
        "duplicate field `text`",
    ),
    (r#"{"adapter": "sst2", "inputs": ["a"]}"#, 400, INVALID, Some("inputs"), "an object of texts"),
    (r#"{"adapter": "sst2", "inputs": null}"#, 400, INVALID, Some("prompt"), "missing"),
    (
        r#"{"adapter": "sst2", "prompt": "a a a a a a"}"#,
        422,
        "input_too_long",
        Some("prompt"),
        "the prompt has 7 tokens and adapter 'sst2' takes s = 6",
    ),
    (
        r#"{"adapter": "pt", "prompt": ["a", "a a a a a a a a a"]}"#,
        422,
        "input_too_long",
        Some("prompt[1]"),
        "10 tokens and model 'tiny' takes 9 beside 3 soft-prompt rows",
    ),
    (
        r#"{"prompt": "a a a a a a a a a a a a"}"#,
        422,
        "input_too_long",
        Some("prompt"),
        "13 tokens and model 'tiny' takes 12",
    ),
    (r#"["sst2", "a"]"#, 400, INVALID, None, "send an object with named fields"),
    (r#"{"prompt": "a", "max_tokens": 0}"#, 400, INVALID, Some("max_tokens"), "max_tokens is 0"),
    (r#"{"prompt": "a", "max_tokens": 65}"#, 400, INVALID, Some("max_tokens"), "generates 1 to 64"),
    (r#"{"prompt": "a", "max_tokens": 99999999999}"#, 400, INVALID, Some("max_tokens"), "99999999999"),
    (r#"{"prompt": "a", "max_tokens": -1}"#, 400, INVALID, Some("max_tokens"), "-1"),
    (r#"{"prompt": "a", "max_tokens": 1.5}"#, 400, INVALID, Some("max_tokens"), "1.5"),
    (r#"{"prompt": "a", "max_tokens": "9"}"#, 400, INVALID, Some("max_tokens"), "invalid type: string"),
    (r#"{"prompt": "a", "max_tokens": 4, "min_tokens": 5}"#, 400, INVALID, Some("min_tokens"), "(4)"),
    (r#"{"prompt": "a", "temperature": -0.5}"#, 400, INVALID, Some("temperature"), "temperature is -0.5"),
    (r#"{"prompt": "a", "temperature": 1e999}"#, 400, INVALID, None, "number out of range"),
    (
        r#"{"prompt": "a", "temperature": NaN}"#,
        400,
        INVALID,
        None,
        "not JSON: expected value at line 1 column 32",
    ),
    (r#"{"prompt": "a", "top_p": 0}"#, 400, INVALID, Some("top_p"), "more than 0, up to 1"),
    (r#"{"prompt": "a", "top_k": -1}"#, 400, INVALID, Some("top_k"), "-1"),
    (r#"{"prompt": "a", "min_p": 1.01}"#, 400, INVALID, Some("min_p"), "0 to 1"),
    (r#"{"prompt": "a", "repetition_penalty": 0}"#, 400, INVALID, Some("repetition_penalty"), "1 is none"),
    (r#"{"prompt": "a", "presence_penalty": 3}"#, 400, INVALID, Some("presence_penalty"), "-2 to 2"),
    (r#"{"prompt": "a", "frequency_penalty": -3}"#, 400, INVALID, Some("frequency_penalty"), "-2 to 2"),
    (r#"{"prompt": "a", "logprobs": 21}"#, 400, INVALID, Some("logprobs"), "0 to 20"),
    (r#"{"prompt": "a", "logprobs": 256}"#, 400, INVALID, Some("logprobs"), "256"),
    (r#"{"prompt": "a", "n": 0}"#, 400, INVALID, Some("n"), "n is 0: use 1 to 64"),
    (r#"{"prompt": "a", "n": 65}"#, 400, INVALID, Some("n"), "n is 65"),
    (r#"{"prompt": "a", "n": 5}"#, 400, INVALID, Some("n"), "one request takes 4"),
    (r#"{"prompt": ["a", "a", "a"], "n": 2}"#, 400, INVALID, Some("prompt"), "are 6 sequences"),
    (r#"{"prompt": "a", "seed": -1}"#, 400, INVALID, Some("seed"), "-1"),
    (r#"{"prompt": "a", "stop": "x"}"#, 400, INVALID, Some("stop"), "expected a sequence"),
    (r#"{"prompt": "a", "stop": ["x", ""]}"#, 400, INVALID, Some("stop[1]"), "use 1 to 256"),
    (r#"{"prompt": "a", "stop": [1]}"#, 400, INVALID, Some("stop[0]"), "expected a string"),
    (r#"{"prompt": "a", "truncate": "both"}"#, 400, INVALID, Some("truncate"), "`both`"),
    (r#"{"prompt": "a", "stream": 1}"#, 400, INVALID, Some("stream"), "expected a boolean"),
    (r#"{"prompt": "a", "timeout_ms": -1}"#, 400, INVALID, Some("timeout_ms"), "-1"),
    ("{\"prompt\":\n \"a\",,}", 400, INVALID, None, "line 2 column 6"),
    ("{\"prompt\": \"a\"", 400, INVALID, None, "EOF while parsing an object at line 1"),
    ("{\"prompt\": \"a\"} x", 400, INVALID, None, "trailing characters"),
    ("", 400, INVALID, None, "EOF"),
    ("null", 400, INVALID, None, "invalid type: null"),
    ("[]", 400, INVALID, None, "send an object"),
    (r#"{"prompt": "\ud800"}"#, 400, INVALID, None, "not JSON"),
    (r#"{"prompt": "a", "choice": []}"#, 400, INVALID, Some("choice"), "it is empty"),
    (r#"{"prompt": "a", "choice": ["x", ""]}"#, 400, INVALID, Some("choice[1]"), "text 1 is empty"),
    (r#"{"prompt": "a", "choice": ["x", "y", "x"]}"#, 400, INVALID, Some("choice[2]"), "the same as text 0"),
    (r#"{"prompt": "a", "choice": "x"}"#, 400, INVALID, Some("choice"), "expected a sequence"),
    (r#"{"prompt": "a", "regex": ""}"#, 400, INVALID, Some("regex"), "it is empty"),
    (r#"{"prompt": "a", "regex": "a", "choice": ["a"]}"#, 400, INVALID, Some("choice"), "exclude each other"),
    (
        r#"{"prompt": "a", "regex": "a", "response_format": {"type": "json_object"}}"#,
        400,
        INVALID,
        Some("regex"),
        "response_format and regex exclude each other",
    ),
    (
        r#"{"prompt": "a", "response_format": {}}"#,
        400,
        INVALID,
        Some("response_format.type"),
        "missing field",
    ),
    (
        r#"{"prompt": "a", "response_format": {"type": "xml"}}"#,
        400,
        INVALID,
        Some("response_format.type"),
        "json_object",
    ),
    (
        r#"{"prompt": "a", "response_format": {"type": "text", "x": 1}}"#,
        400,
        INVALID,
        Some("response_format.x"),
        "unknown field",
    ),
    (
        r#"{"prompt": "a", "response_format": {"type": "json_schema"}}"#,
        400,
        INVALID,
        Some("response_format.json_schema.schema"),
        "missing",
    ),
    (
        r#"{"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}"#,
        400,
        INVALID,
        Some("response_format.json_schema.schema"),
        "a schema is an object",
    ),
    (
        r#"{"prompt": "a", "response_format": {"type": "json_object", "json_schema": {}}}"#,
        400,
        INVALID,
        Some("response_format.json_schema"),
        "goes with type json_schema",
    ),
    // The words of this test's vocabulary say nothing about the spaces between them.
    (
        r#"{"prompt": "a", "regex": "a"}"#,
        400,
        INVALID,
        Some("regex"),
        "vocabulary can't be used with grammars",
    ),
];

#[tokio::test]
async fn each_bad_body_has_its_answer() {
    let app = server();
    for &(body, status, code, param, message) in CASES {
        let error = ask(&app, post("/v1/generate", body)).await.error();
        let found = (error.0, error.1.as_str(), error.2.as_str());
        assert_eq!(found, (status, code, param), "{body}: {}", error.3);
        assert!(error.3.contains(message), "{body}: {}", error.3);
    }
}

#[tokio::test]
async fn bytes_that_are_not_text_are_refused() {
    let body = Body::from(&b"{\"prompt\": \"\xff\"}"[..]);
    let error = ask(&server(), post("/v1/generate", body)).await.error();
    assert_eq!((error.0, error.1.as_str()), (400, INVALID));
    assert!(error.3.contains("not UTF-8: byte 12"), "{}", error.3);
}

#[tokio::test]
async fn too_many_and_too_long_stop_strings_are_refused() {
    let app = server();
    let many = json!({"prompt": "a", "stop": vec!["x"; 17]});
    assert_eq!(generate(&app, many).await.error().2, "stop");
    let long = json!({"prompt": "a", "stop": ["x".repeat(257)]});
    assert_eq!(generate(&app, long).await.error().2, "stop[0]");
}

#[tokio::test]
async fn deep_nesting_is_an_error_and_no_overflow() {
    let body = format!("{{\"prompt\": {}", "[".repeat(100_000));
    let error = ask(&server(), post("/v1/generate", body)).await.error();
    assert_eq!(error.0, 400, "{}", error.3);
}

#[tokio::test]
async fn the_other_routes_are_as_strict() {
    let app = server();
    let cases = [
        ("/v1/tokenize", r#"{"prompt": "a", "x": 1}"#, 400, Some("x")),
        ("/v1/tokenize", r#"{"prompt": ""}"#, 400, Some("prompt")),
        ("/v1/tokenize", r#"{"adapter": "sst2", "inputs": {"x": "a", "x": "a"}}"#, 400, Some("inputs.x")),
        ("/v1/tokenize", r#"{"prompt": "a", "adapter": "nope"}"#, 404, Some("adapter")),
        ("/v1/detokenize", r#"{"ids": [1, 9]}"#, 400, Some("ids[1]")),
        ("/v1/detokenize", r#"{"ids": [1, -9]}"#, 400, Some("ids[1]")),
        ("/v1/detokenize", r#"{}"#, 400, Some("ids")),
    ];
    for (path, body, status, param) in cases {
        let error = ask(&app, post(path, body)).await.error();
        assert_eq!((error.0, error.2.as_str()), (status, param), "{body}: {}", error.3);
    }
}
