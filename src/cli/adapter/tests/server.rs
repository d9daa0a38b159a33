//! `push`, `pull`, `list` and `rm` against a server of a few lines that keeps the contract's routes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path as UrlPath, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, put},
};

use super::{super::remote::Client, *};
use crate::adapter::archive;

#[derive(Default)]
struct Kept {
    adapters: BTreeMap<String, Vec<u8>>,
    /// The method, path and query, and headers that matter, of each request.
    log: Vec<String>,
    /// Said in place of the true version.
    tag: Option<String>,
}

type Shared = Arc<Mutex<Kept>>;

fn describe(name: &str, bytes: &[u8]) -> Value {
    let files = archive::read(bytes, &archive::Limits::default()).unwrap();
    let generation = LoadedAdapter::from_bytes(files, None).unwrap().into_generation(name.parse().unwrap());
    json!({
        "name": name, "namespace": "home", "version": generation.version().to_string(), "method": "dept",
        "prompt_length": 60, "rank": 30, "max_length": 256, "parameters": 1, "bytes": 307_200, "created_at": "",
        "residency": "store", "pinned": name == "b", "card": {},
    })
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    let error = json!({ "error": { "message": message, "type": "x", "param": null, "code": code, "request_id": "1" } });
    (status, Json(error)).into_response()
}

async fn upload(
    State(kept): State<Shared>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let mut kept = kept.lock().unwrap();
    let told = ["authorization", "content-type", "if-match", "if-none-match"]
        .map(|name| header(name).unwrap_or_default());
    kept.log.push(format!("PUT {name} {query:?} {}", told.join(" ")));
    if header("if-none-match").is_some() && kept.adapters.contains_key(&name) {
        return refuse(StatusCode::PRECONDITION_FAILED, "precondition_failed", "there is one already");
    }
    let status = if kept.adapters.contains_key(&name) { StatusCode::OK } else { StatusCode::CREATED };
    kept.adapters.insert(name.clone(), body.to_vec());
    (status, Json(describe(&name, &body))).into_response()
}

async fn content(State(kept): State<Shared>, UrlPath(name): UrlPath<String>) -> Response {
    let kept = kept.lock().unwrap();
    match kept.adapters.get(&name) {
        None => refuse(StatusCode::NOT_FOUND, "adapter_not_found", &format!("there is no adapter '{name}'")),
        Some(bytes) => {
            let tag = kept
                .tag
                .clone()
                .unwrap_or_else(|| describe("x", bytes)["version"].as_str().unwrap().to_owned());
            ([("etag", format!("\"{tag}\""))], bytes.clone()).into_response()
        }
    }
}

/// Pages of one adapter each.
async fn page(State(kept): State<Shared>, Query(query): Query<BTreeMap<String, String>>) -> Json<Value> {
    let kept = kept.lock().unwrap();
    let after = query.get("after").cloned().unwrap_or_default();
    let mut rest = kept.adapters.iter().filter(|(name, _)| **name > after);
    let first = rest.next();
    let adapters: Vec<Value> = first.iter().map(|(name, bytes)| describe(name, bytes)).collect();
    Json(json!({ "adapters": adapters, "next": rest.next().and(first).map(|(name, _)| name) }))
}

async fn remove(State(kept): State<Shared>, UrlPath(path): UrlPath<String>) -> Response {
    let mut kept = kept.lock().unwrap();
    kept.log.push(format!("DELETE {path}"));
    let name = path.split('/').next().unwrap().to_owned();
    match path.contains('/') || kept.adapters.remove(&name).is_some() {
        true => StatusCode::NO_CONTENT.into_response(),
        false => refuse(StatusCode::NOT_FOUND, "adapter_not_found", &format!("there is no adapter '{name}'")),
    }
}

async fn start() -> (SocketAddr, Shared) {
    let kept = Shared::default();
    let router = Router::new()
        .route("/v1/adapters", get(page))
        .route("/v1/adapters/{name}", put(upload).delete(remove))
        .route(
            "/v1/adapters/{name}/versions/{version}",
            axum::routing::delete({
                async |state, UrlPath((name, version)): UrlPath<(String, String)>| {
                    remove(state, UrlPath(format!("{name}/{version}"))).await
                }
            }),
        )
        .route("/v1/adapters/{name}/content", get(content))
        .with_state(kept.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    (address, kept)
}

/// Runs one line of the command line.
async fn dept(address: SocketAddr, line: &[&str]) -> anyhow::Result<String> {
    let server = format!("--server=http://{address}");
    let words = ["adapter"].into_iter().chain(line.iter().copied()).chain([server.as_str()]);
    match Line::try_parse_from(words)?.args.command {
        Command::Push { source, push, server } => Client::new(&server)?.push(&source, &push).await,
        Command::Pull { name, to, server } => Client::new(&server)?.pull(&name, to.as_deref()).await,
        Command::List { json, server } => Client::new(&server)?.list(json).await,
        Command::Rm { name, namespace, server } => Client::new(&server)?.remove(&name, namespace).await,
        _ => unreachable!("the others need no server"),
    }
}

#[tokio::test]
async fn what_is_pushed_is_listed_pulled_and_removed() {
    let (address, kept) = start().await;
    let (source, dir) = (golden("official/sst2"), tempfile::tempdir().unwrap());
    let (source, to) = (source.to_str().unwrap(), dir.path().join("copy"));
    let version = "sha256:7ff71de10f2a5010ea97c9e35b84c3bc592e99bfc9a3bf97ce106af1ec6b595f";
    assert_eq!(dept(address, &["push", source]).await.unwrap(), format!("created sst2 {version}\n"));
    let again = dept(address, &["push", source, "--if-match", version]).await.unwrap();
    assert_eq!(again, format!("updated sst2 {version}\n"));
    let shared = ["push", source, "--name", "b", "--namespace", "shared", "--new", "--api-key", "secret"];
    assert_eq!(dept(address, &shared).await.unwrap(), format!("created b {version}\n"));
    assert_eq!(
        kept.lock().unwrap().log,
        [
            "PUT sst2 {}  application/zip  ".to_owned(),
            format!("PUT sst2 {{}}  application/zip \"{version}\" "),
            "PUT b {\"namespace\": \"shared\"} Bearer secret application/zip  *".to_owned(),
        ]
    );

    let list = dept(address, &["list"]).await.unwrap();
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines,
        [
            vec!["NAME", "VERSION", "METHOD", "M", "R", "S", "BYTES", "RESIDENCY", "PINNED"],
            vec!["b", "7ff71de10f2a", "dept", "60", "30", "256", "307200", "store", "yes"],
            vec!["sst2", "7ff71de10f2a", "dept", "60", "30", "256", "307200", "store"],
        ]
    );
    let json: Value = serde_json::from_str(&dept(address, &["list", "--json"]).await.unwrap()).unwrap();
    assert_eq!((json[0]["name"].as_str(), json[1]["version"].as_str()), (Some("b"), Some(version)));

    let report = dept(address, &["pull", "sst2", "--to", to.to_str().unwrap()]).await.unwrap();
    assert_eq!(report, format!("sst2 {version} in {}\n", to.display()));
    for file in ["adapter_config.json", "adapter_model.bin"] {
        assert_eq!(
            std::fs::read(to.join(file)).unwrap(),
            std::fs::read(golden("official/sst2").join(file)).unwrap()
        );
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    let error = dept(address, &["pull", "sst2", "--to", to.to_str().unwrap()]).await.unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");

    assert_eq!(dept(address, &["rm", "sst2@7ff71de10f2a"]).await.unwrap(), "removed sst2@7ff71de10f2a\n");
    assert_eq!(dept(address, &["rm", "sst2"]).await.unwrap(), "removed sst2\n");
    assert_eq!(kept.lock().unwrap().log[3..], ["DELETE sst2/7ff71de10f2a", "DELETE sst2"]);
}

#[tokio::test]
async fn errors_are_in_the_server_s_words() {
    let (address, _) = start().await;
    let sst2 = golden("official/sst2");
    let source = sst2.to_str().unwrap();
    let error = dept(address, &["rm", "gone"]).await.unwrap_err().to_string();
    assert_eq!(error, "there is no adapter 'gone' (404 adapter_not_found)");
    dept(address, &["push", source]).await.unwrap();
    let error = dept(address, &["push", source, "--new"]).await.unwrap_err().to_string();
    assert_eq!(error, "there is one already (412 precondition_failed)");
    let error = dept(address, &["pull", "x", "--to", "no/such"]).await.unwrap_err().to_string();
    assert_eq!(error, "there is no adapter 'x' (404 adapter_not_found)");
    // An adapter that is not sound is not sent.
    let wic = golden("official/wic");
    let error = format!("{:#}", dept(address, &["push", wic.to_str().unwrap()]).await.unwrap_err());
    assert!(error.contains("missing tensors"), "{error}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let error = dept(nobody, &["list"]).await.unwrap_err().to_string();
    assert!(error.contains("no server answers at"), "{error}");
}

#[tokio::test]
async fn what_is_pulled_is_held_against_its_version_and_the_archive_s_rules() {
    let (address, kept) = start().await;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("copy");
    let pull = ["pull", "sst2", "--to", to.to_str().unwrap()];
    dept(address, &["push", golden("official/sst2").to_str().unwrap()]).await.unwrap();
    kept.lock().unwrap().tag = Some(format!("sha256:{}", "0".repeat(64)));
    let error = dept(address, &pull).await.unwrap_err().to_string();
    assert!(error.contains("the server says that this is version"), "{error}");
    kept.lock().unwrap().adapters.insert("sst2".into(), b"<html>".to_vec());
    let error = format!("{:#}", dept(address, &pull).await.unwrap_err());
    assert!(error.contains("not an archive that is read"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
