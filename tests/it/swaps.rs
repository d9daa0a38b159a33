//! Adapters exchanged under load, on a real server: no request fails and none gets parts of two versions.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    support::golden,
    support::process::{Server, client},
};

/// Other contents that take turns under one name, and how often they do.
const VARIANTS: usize = 8;
const SWAPS: usize = 3000;
const STREAMS: usize = 6;
const NEW_TOKENS: usize = 12;

/// A folder in memory where the system has one: thousands of uploads are synced one by one.
fn root() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// Another adapter for each number: the golden one with its numbers times something.
fn form(variant: usize) -> Form {
    let folder = golden("adapters/llama/dept");
    let mut weights = fs::read(folder.join("adapter_model.safetensors")).unwrap();
    let header = usize::try_from(u64::from_le_bytes(weights[..8].try_into().unwrap())).unwrap();
    for number in weights[8 + header..].chunks_exact_mut(4) {
        let changed = f32::from_le_bytes(number.try_into().unwrap()) * (1.0 - 0.6 * variant as f32);
        number.copy_from_slice(&changed.to_le_bytes());
    }
    let config = fs::read(folder.join("adapter_config.json")).unwrap();
    Form::new().part("config", Part::bytes(config)).part("weights", Part::bytes(weights))
}

/// One client and its connections.
#[derive(Clone)]
struct User {
    client: reqwest::Client,
    http: String,
}

impl User {
    /// Makes `variant` the current version; returns which that is.
    async fn put(&self, variant: usize) -> String {
        let put = self.client.put(format!("{}/v1/adapters/task", self.http)).multipart(form(variant));
        let sent = put.send().await.unwrap();
        let status = sent.status();
        let object: Value = sent.json().await.unwrap();
        assert!(status.is_success(), "{object}");
        object["version"].as_str().unwrap().to_owned()
    }

    /// Streams an answer: the tokens one by one, and the whole at the end.
    async fn stream(&self) -> (Vec<u64>, Value) {
        let body = json!({"adapter": "task", "prompt": [5, 6, 7, 8, 9, 10, 11], "stream": true, "logprobs": 1,
                          "max_tokens": NEW_TOKENS, "min_tokens": NEW_TOKENS});
        let sent = self.client.post(format!("{}/v1/generate", self.http)).json(&body).send().await.unwrap();
        let status = sent.status();
        let text = sent.text().await.unwrap();
        assert!(status.is_success(), "{text}");
        let frames: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(frames.last(), Some(&"[DONE]"), "{text}");
        let frames: Vec<Value> =
            frames[..frames.len() - 1].iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
        let (whole, tokens) = frames.split_last().unwrap();
        // Text that was held back comes at the end without a token.
        (tokens.iter().filter_map(|frame| frame["token"]["id"].as_u64()).collect(), whole.clone())
    }
}

/// What an answer is made of: every token with its log-probability.
fn content(whole: &Value) -> Value {
    whole["tokens"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_across_thousands_of_swaps_fail_never_and_mix_nothing() {
    let (root, model) = (root(), golden("llama"));
    let server = Server::start(&[
        "--model",
        model.to_str().unwrap(),
        "--adapters",
        root.path().to_str().unwrap(),
        "--max-model-len",
        "96",
        "--adapters-interval",
        "20ms",
    ]);
    let user = User { client: client(), http: server.http.clone() };
    // What each version says alone.
    let mut alone: HashMap<String, Value> = HashMap::new();
    for variant in 0..VARIANTS {
        let version = user.put(variant).await;
        let (_, whole) = user.stream().await;
        assert_eq!(whole["adapter_version"], version.as_str(), "the next request gets it");
        alone.insert(version, content(&whole));
    }
    let distinct: std::collections::HashSet<String> = alone.values().map(Value::to_string).collect();
    assert_eq!(distinct.len(), VARIANTS, "versions can be told apart by what they say");

    let (alone, done) = (Arc::new(alone), Arc::new(AtomicBool::new(false)));
    let swaps = Arc::new(AtomicUsize::new(0));
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| {
            let (user, alone, done, swaps) =
                (user.clone(), Arc::clone(&alone), Arc::clone(&done), Arc::clone(&swaps));
            tokio::spawn(async move {
                let (mut answers, mut overtaken, mut versions) = (0, 0, std::collections::HashSet::new());
                while !done.load(Ordering::Acquire) {
                    let before = swaps.load(Ordering::Acquire);
                    let (tokens, whole) = user.stream().await;
                    overtaken += usize::from(swaps.load(Ordering::Acquire) > before + 1);
                    let version = whole["adapter_version"].as_str().unwrap();
                    let expected = &alone[version];
                    assert_eq!(content(&whole), *expected, "{version} says another thing than alone");
                    let ids = expected.as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap());
                    assert_eq!(tokens, ids.collect::<Vec<_>>());
                    versions.insert(version.to_owned());
                    answers += 1;
                }
                (answers, overtaken, versions.len())
            })
        })
        .collect();
    for swap in 0..SWAPS {
        let version = user.put(swap % VARIANTS).await;
        swaps.fetch_add(1, Ordering::AcqRel);
        // Once in a while somebody asks right behind the answer: it is this version, no older one.
        if swap % 50 == 0 {
            let (_, whole) = user.stream().await;
            assert_eq!(whole["adapter_version"], version.as_str(), "swap {swap}");
        }
    }
    done.store(true, Ordering::Release);
    let (mut answers, mut overtaken) = (0, 0);
    for stream in streams {
        let (own, own_overtaken, versions) = stream.await.unwrap();
        assert_eq!(versions, VARIANTS, "every client met every version");
        (answers, overtaken) = (answers + own, overtaken + own_overtaken);
    }
    assert!(answers >= 100 && overtaken >= 50, "{overtaken} of {answers} answers were overtaken by swaps");
    while server.metric("dept_requests_running").await > 0.0 {}
}
