//! The `dept` command as a user runs it.

use std::{fs, path::Path};

use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    golden,
    process::{Server, client, run, said},
    repo,
};

/// A body that generates exactly `tokens` tokens.
fn long(tokens: u32) -> Value {
    json!({"prompt": "Tell a long story.", "max_tokens": tokens, "min_tokens": tokens, "stream": true})
}

#[tokio::test]
async fn it_serves_what_ships_with_it_and_drains() {
    let server = Server::start(&[]);
    for (prompt, label) in
        [("a warm , funny and moving film .", "positive"), ("a dull , lifeless mess .", "negative")]
    {
        let (status, answer) =
            server.generate(&json!({"adapter": "sst2", "inputs": {"sentence": prompt}})).await;
        assert_eq!((status, answer["label"].as_str()), (200, Some(label)), "{answer}");
        assert_eq!(answer["usage"]["virtual_tokens"], 20);
    }
    let (status, answer) = server.generate(&json!({"adapter": "nope", "prompt": "x"})).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (404, Some("adapter_not_found")));
    let client = client();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let sent = client.post(format!("{}/v1/generate", server.http)).json(&long(64)).send().await.unwrap();
        streams.push(sent);
    }
    server.terminate();
    for stream in streams {
        let text = stream.text().await.unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "what runs may finish: {text}");
        assert!(text.contains(r#""completion_tokens":64"#), "{text}");
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_place() {
    let server = Server::start(&["--max-num-seqs", "1"]);
    let client = client();
    let sent = client.post(format!("{}/v1/generate", server.http)).json(&long(1024)).send().await.unwrap();
    let mut body = sent.bytes_stream();
    assert!(body.next().await.unwrap().is_ok(), "it has begun");
    drop(body);
    drop(client);
    // The only seat is free again long before 1024 tokens: this request waits for it and for nothing else.
    let (status, _) = server.generate(&json!({"adapter": "sst2", "prompt": "sentence: fine ."})).await;
    assert_eq!(status, 200);
    let steps = server.metric("dept_step_duration_seconds_count{phase=\"decode\"}").await;
    assert!(steps < 1000.0, "the abandoned one did not run on: {steps} steps");
    // The engine shows its load after the step whose answer has just come.
    while server.metric("dept_kv_cache_usage_ratio").await > 0.0 {}
}

#[test]
fn a_port_in_use_is_said_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cases = [
        ("--http", ["--http", &address, "--grpc", "off"]),
        ("--grpc", ["--http", "127.0.0.1:0", "--grpc", &address]),
    ];
    for (flag, doors) in cases {
        let output = run(&[&["serve", "--admin", "127.0.0.1:0"], &doors[..]].concat());
        assert_eq!(output.status.code(), Some(78));
        let message = format!("can't listen on {address} ({flag})");
        assert!(said(&output).contains(&message), "{}", said(&output));
    }
}

/// A copy of the golden model, to be spoiled.
fn spoiled(spoil: impl FnOnce(&Path)) -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(golden("t5-v1_1").join(file), folder.path().join(file)).unwrap();
    }
    spoil(folder.path());
    folder
}

#[test]
fn a_broken_model_is_said_so() {
    type Spoil = fn(&Path);
    let cases: [(Spoil, &str); 5] = [
        (|folder| fs::remove_file(folder.join("config.json")).unwrap(), "config.json"),
        (|folder| fs::write(folder.join("config.json"), "{").unwrap(), "config.json"),
        (|folder| fs::write(folder.join("model.safetensors"), [0xff; 64]).unwrap(), "model.safetensors"),
        (|folder| fs::remove_file(folder.join("tokenizer.json")).unwrap(), "tokenizer.json"),
        (
            |folder| {
                let path = folder.join("config.json");
                let text = fs::read_to_string(&path).unwrap().replace("\"d_ff\": 96", "\"d_ff\": 97");
                fs::write(path, text).unwrap();
            },
            "97",
        ),
    ];
    for (spoil, named) in cases {
        let folder = spoiled(spoil);
        let output = run(&["generate", "--model", folder.path().to_str().unwrap(), "--prompt", "x"]);
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        assert!(said(&output).contains(named), "{named}: {}", said(&output));
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
    }
    let output = run(&["serve", "--model", "/no/such/model"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).contains("/no/such/model"), "{}", said(&output));
}

#[test]
fn bad_usage_is_2_and_help_is_0() {
    assert_eq!(run(&["serve", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(run(&["serve", "--threads", "many"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
    let help = run(&["serve", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(said(&help).contains("[default: 127.0.0.1:8080]"));
}

#[test]
fn it_generates_without_a_server() {
    let output = run(&["generate", "--adapter", "sst2", "--prompt", "sentence: a warm and funny film ."]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "positive\n", "{}", said(&output));
    let folder = repo("adapters/sst2");
    let folder = folder.to_str().unwrap();
    let output = run(&["generate", "--adapter", folder, "--input", "sentence=an awful bore ."]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "negative\n", "{}", said(&output));
    let output = run(&["generate", "--adapter", "nope", "--prompt", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("nope"), "{}", said(&output));
}

#[test]
fn adapters_are_inspected_and_refused() {
    let folder = golden("official/sst2");
    let output = run(&["adapter", "inspect", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    for fact in ["dept", "60", "30", "256", "768"] {
        assert!(said(&output).contains(fact), "{fact}: {}", said(&output));
    }
    let output = run(&["adapter", "validate", golden("official/wic").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    for tensor in ["prompt_encoder.lora_embedding_A", "prompt_encoder.lora_embedding_B"] {
        assert!(said(&output).contains(tensor), "{}", said(&output));
    }
}

#[tokio::test]
async fn a_decoder_only_model_is_served_too() {
    let model = golden("llama");
    let adapters = golden("adapters/llama");
    let server = Server::start(&[
        "--model",
        model.to_str().unwrap(),
        "--adapters",
        adapters.to_str().unwrap(),
        "--max-model-len",
        "96",
    ]);
    let text = fs::read_to_string(golden("expected/llama.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    for case in expected["cases"].as_array().unwrap() {
        let tokens = case["tokens"].as_array().unwrap();
        let (status, answer) = server
            .generate(&json!({"adapter": case["adapter"], "prompt": case["prompt_ids"],
                "max_tokens": tokens.len(), "logprobs": 1}))
            .await;
        assert_eq!(status, 200, "{answer}");
        let found: Vec<&Value> =
            answer["tokens"].as_array().unwrap().iter().map(|token| &token["id"]).collect();
        assert_eq!(found, tokens.iter().collect::<Vec<_>>(), "{}", case["name"]);
    }
}

#[tokio::test]
async fn the_log_follows_its_key_and_health_is_a_command() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("dept.toml");
    fs::write(&file, "log = \"warn\"\n").unwrap();
    let server = Server::start(&["--config", file.to_str().unwrap()]);
    let admin = server.admin.trim_start_matches("http://").to_owned();
    for args in [&["health", "--admin", &admin][..], &["health", "--live", "--admin", &admin]] {
        let output = run(args);
        assert_eq!((output.status.code(), said(&output).trim()), (Some(0), r#"{"status":"ok"}"#));
    }
    assert_eq!(server.log(), "", "nothing worth a warning has happened");

    let reloads = "dept_reloads_total{file=\"log\",outcome=";
    fs::write(&file, "log = \"dept=loud\"").unwrap();
    server.signal("-HUP");
    while server.counted(&format!("{reloads}\"error\"}}")).await == 0.0 {}
    fs::write(&file, "log = \"debug\"\n").unwrap();
    server.signal("-HUP");
    while server.counted(&format!("{reloads}\"ok\"}}")).await == 0.0 {}
    assert_eq!(server.generate(&json!({"adapter": "sst2", "prompt": "sentence: fine ."})).await.0, 200);
    // The line is written when the account closes, which may be after the answer has come.
    while !server.log().contains("request ended") {}

    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let output = run(&["health", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("does not answer: is the server running"), "{}", said(&output));
}

#[tokio::test]
async fn a_text_is_held_to_what_the_request_says_it_is() {
    let server = Server::start(&[]);
    let ask = |more: Value| {
        let mut body =
            json!({"adapter": "sst2", "inputs": {"sentence": "superb"}, "temperature": 1, "max_tokens": 60});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let server = &server;
        async move { server.generate(&body).await }
    };
    let (status, answer) = ask(json!({"choice": ["brilliant", "awful"], "n": 8})).await;
    assert_eq!(status, 200, "{answer}");
    for choice in answer["choices"].as_array().unwrap() {
        assert!(["brilliant", "awful"].contains(&choice["text"].as_str().unwrap()), "{choice}");
        assert_eq!(choice["finish_reason"], "stop");
    }
    let (status, answer) = ask(json!({"regex": "[1-5] of 5"})).await;
    let text = answer["text"].as_str().unwrap();
    assert!(status == 200 && text.len() == 6 && text.ends_with(" of 5"), "{answer}");
    let list = json!({"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 1, "maxItems": 3});
    let format = |schema: &Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}});
    let (status, answer) = ask(format(&list)).await;
    assert_eq!(status, 200, "{answer}");
    let numbers: Vec<u8> = serde_json::from_str(answer["text"].as_str().unwrap()).unwrap();
    assert!((1..=3).contains(&numbers.len()), "{answer}");
    // What can't be followed is said before anything runs.
    let refused = [
        (json!({"response_format": {"type": "json_object"}}), "response_format", "can't write '{'"),
        (json!({"choice": ["yes", "{}"]}), "choice[1]", "can't write '{', '}'"),
        (json!({"regex": "a(b"}), "regex", "from byte 1 on"),
        (
            format(&json!({"type": "array", "items": {"not": {}}})),
            "response_format.json_schema.schema.items",
            "Unimplemented keys",
        ),
    ];
    for (more, param, message) in refused {
        let (status, answer) = ask(more).await;
        let error = &answer["error"];
        assert_eq!(
            (status, error["code"].as_str(), error["param"].as_str()),
            (400, Some("invalid_request"), Some(param))
        );
        assert!(error["message"].as_str().unwrap().contains(message), "{answer}");
    }
}

#[test]
fn generate_holds_its_text_to_a_flag() {
    let ask = |more: &[&str]| {
        let args = [
            "generate",
            "--adapter",
            "sst2",
            "--prompt",
            "sentence: superb",
            "--temperature",
            "1",
            "--max-tokens",
            "20",
        ];
        run(&[&args[..], more].concat())
    };
    let chosen = ask(&["--choice", "brilliant", "--choice", "awful"]);
    assert!(["brilliant\n", "awful\n"].contains(&said(&chosen).as_str()), "{}", said(&chosen));
    let folder = TempDir::new().unwrap();
    let schema = folder.path().join("schema.json");
    fs::write(&schema, r#"{"enum": [11, 22]}"#).unwrap();
    let json = ask(&["--json-schema", schema.to_str().unwrap()]);
    assert!(["11\n", "22\n"].contains(&said(&json).as_str()), "{}", said(&json));
    assert_eq!(ask(&["--regex", "a", "--choice", "b"]).status.code(), Some(2));
    let refused = ask(&["--regex", "a("]);
    assert!(
        refused.status.code() == Some(1) && said(&refused).contains("from byte 1 on"),
        "{}",
        said(&refused)
    );
}
