//! Keys and the end of a drain, with the command as an operator runs it.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{Server, client, run, said};

/// A key and its line, as `dept key new` prints them.
fn new_key(name: &str) -> (String, String) {
    let output = run(&["key", "new", name]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let after = |word: &str| text.lines().find_map(|line| line.strip_prefix(word)).unwrap().trim().to_owned();
    (after("key"), after("line"))
}

async fn status(server: &Server, key: Option<&str>) -> (u16, Value) {
    let mut request = client().post(format!("{}/v1/generate", server.http));
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let body = json!({"adapter": "sst2", "prompt": "sentence: a warm and funny film ."});
    let response = request.json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn keys_let_in_and_are_exchanged_while_the_server_runs() {
    let ((old, old_line), (new, new_line)) = (new_key("laptop"), new_key("laptop-2"));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("keys.toml");
    let write = |line: &str| fs::write(&file, format!("[tenants.acme]\nkeys = [\n  {line},\n]\n")).unwrap();
    write(&old_line);
    let server = Server::start(&["--api-keys", file.to_str().unwrap()]);

    let (code, body) = status(&server, None).await;
    assert_eq!((code, &body["error"]["code"]), (401, &json!("unauthorized")));
    let (code, body) = status(&server, Some(&old)).await;
    assert_eq!((code, &body["label"]), (200, &json!("positive")));
    assert_eq!(status(&server, Some(&new)).await.0, 401);

    // A broken file first: it is counted, and changes nothing.
    fs::write(&file, "[tenants").unwrap();
    server.signal("-HUP");
    let counted = |outcome: &str| format!("dept_reloads_total{{file=\"api_keys\",outcome=\"{outcome}\"}}");
    while server.counted(&counted("error")).await == 0.0 {}
    assert_eq!(status(&server, Some(&old)).await.0, 200);

    write(&new_line);
    server.signal("-HUP");
    while server.counted(&counted("ok")).await == 0.0 {}
    assert_eq!(status(&server, Some(&new)).await.0, 200);
    assert_eq!(status(&server, Some(&old)).await.0, 401);
    let spent = server.metric("dept_tenant_tokens_total{kind=\"virtual\",tenant=\"acme\"}").await;
    assert_eq!(spent, 60.0, "three answers with an adapter of 20 rows");
}

#[test]
fn what_would_let_everyone_in_by_mistake_does_not_start() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("keys.toml");
    fs::write(&file, "[tenants.acme]\nkeys = []\n").unwrap();
    let file = file.to_str().unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["--http", "0.0.0.0:0"], "asks for no keys: give --api-keys"),
        (&["--api-keys", "/nonexistent/keys.toml"], "/nonexistent/keys.toml"),
        (&["--api-keys", file], "tenant 'acme' has no key"),
        (&["--api-keys", file, "--allow-anonymous"], "exclude each other"),
        (&["--cors-origin", "*"], "name origins"),
        (&["--tls-cert", file, "--tls-key", file], "has no certificate"),
    ];
    for (flags, message) in cases {
        let output = run(&[&["serve", "--grpc", "off", "--admin", "127.0.0.1:0"], flags].concat());
        assert_eq!(output.status.code(), Some(78), "{flags:?}: {}", said(&output));
        assert!(said(&output).contains(message), "{flags:?}: {}", said(&output));
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_drain() {
    let server = Server::start(&["--drain-timeout", "600s"]);
    let body = json!({"prompt": vec!["Tell a long story."; 16], "max_tokens": 1024, "min_tokens": 1024, "stream": true});
    let sent = client().post(format!("{}/v1/generate", server.http)).json(&body).send();
    let stream = sent.await.unwrap();
    assert_eq!(stream.status(), 200);
    server.terminate();
    // Two signals at once would be one: the second is sent when the first was heard.
    while client().get(format!("{}/health/ready", server.admin)).send().await.unwrap().status() == 200 {}
    server.terminate();
    let text = stream.text().await.unwrap();
    assert!(text.contains(r#""code":"draining""#) && !text.contains("[DONE]"), "{text}");
    assert_eq!(server.wait().code(), Some(0));
}
