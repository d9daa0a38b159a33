//! One store under real servers: killed at any moment, and shared by two.

use std::{fs, path::Path};

use reqwest::{
    StatusCode,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    support::process::{Server, client},
    support::repo,
};

/// An adapter of the embedded model, told apart by its card.
fn form(round: usize) -> Form {
    let file = |name: &str| fs::read(repo("adapters/sst2").join(name)).unwrap();
    let card = format!("description = \"round {round}\"\n");
    Form::new()
        .part("config", Part::bytes(file("adapter_config.json")))
        .part("weights", Part::bytes(file("adapter_model.safetensors")))
        .part("card", Part::bytes(card.into_bytes()))
}

fn start(root: &Path, more: &[&str]) -> Server {
    Server::start(&[&["--adapters", root.to_str().unwrap()], more].concat())
}

async fn upload(server: &Server, round: usize) -> reqwest::Result<Value> {
    let put = client().put(format!("{}/v1/adapters/task", server.http)).multipart(form(round));
    put.send().await?.json().await
}

/// The round that an adapter was uploaded in; `None` where there is none.
async fn round(server: &Server) -> Option<usize> {
    let shown = client().get(format!("{}/v1/adapters/task", server.http)).send().await.unwrap();
    if shown.status() == StatusCode::NOT_FOUND {
        return None;
    }
    let shown: Value = shown.json().await.unwrap();
    let said = shown["card"]["description"].as_str().unwrap();
    Some(said.strip_prefix("round ").unwrap().parse().unwrap())
}

async fn answers(server: &Server) -> (u16, Value) {
    let body = json!({"adapter": "task", "prompt": "sentence: a warm and funny film ."});
    let sent = client().post(format!("{}/v1/generate", server.http)).json(&body).send().await.unwrap();
    (sent.status().as_u16(), sent.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_a_server_is_killed_its_store_has_the_old_version_or_the_new() {
    let root = TempDir::new().unwrap();
    let (mut sent, mut stored) = (0, None);
    for kills_after in [1, 4, 9] {
        let server = start(root.path(), &[]);
        let found = round(&server).await;
        assert!(
            found >= stored && found <= Some(sent),
            "{stored:?} was answered, {sent} was sent, {found:?} is there"
        );
        let after = sent + kills_after;
        loop {
            sent += 1;
            if sent > after {
                // While the upload is on its way.
                let (killed, outcome) = tokio::join!(async { server.signal("-KILL") }, upload(&server, sent));
                let () = killed;
                if outcome.is_ok_and(|object| object["version"].is_string()) {
                    stored = Some(sent);
                }
                break;
            }
            assert!(upload(&server, sent).await.unwrap()["version"].is_string());
            stored = Some(sent);
        }
        drop(server);
    }
    let server = start(root.path(), &[]);
    let found = round(&server).await;
    assert!(
        found >= stored && found <= Some(sent),
        "{stored:?} was answered, {sent} was sent, {found:?} is there"
    );
    let (status, answer) = answers(&server).await;
    assert_eq!((status, answer["text"].as_str()), (200, Some("positive")), "{answer}");
}

#[tokio::test]
async fn what_one_server_takes_the_other_serves() {
    let root = TempDir::new().unwrap();
    let [one, two] = [(); 2].map(|()| start(root.path(), &["--adapters-interval", "50ms"]));
    assert_eq!(answers(&two).await.0, 404);
    let first = upload(&one, 1).await.unwrap();
    // It was looked for in vain a moment ago, which is remembered for an interval.
    let found = loop {
        let (status, answer) = answers(&two).await;
        if status == 200 {
            break answer;
        }
    };
    assert_eq!(found["adapter_version"], first["version"]);
    let second = upload(&one, 2).await.unwrap();
    while answers(&two).await.1["adapter_version"] != second["version"] {}
    assert_eq!(round(&two).await, Some(2));
    let gone = client().delete(format!("{}/v1/adapters/task", two.http)).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    while answers(&one).await.0 != 404 {}
}
