//! A server whose store goes away and comes back: what is in memory is served, health and metrics say what is not.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    support::process::{Process, Server, client},
    support::repo,
};

/// What the bucket's keeper says to everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// The credential is over.
    Expired,
}

/// As much of S3 as a store of adapters needs.
struct Bucket {
    objects: Mutex<BTreeMap<String, Bytes>>,
    mood: Mutex<Mood>,
}

/// The bucket's door, which can be shut with all who stand in it.
struct Door {
    bucket: Arc<Bucket>,
    address: SocketAddr,
    open: Option<Runtime>,
}

impl Door {
    async fn open() -> Self {
        let bucket = Bucket { objects: Mutex::default(), mood: Mutex::new(Mood::Well) };
        let address = ([127, 0, 0, 1], 0).into();
        let mut door = Self { bucket: Arc::new(bucket), address, open: None };
        door.reopen().await;
        door
    }

    async fn reopen(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (wanted, bucket) = (self.address, Arc::clone(&self.bucket));
        let bound = runtime.spawn(async move {
            let listener = TcpListener::bind(wanted).await.unwrap();
            let address = listener.local_addr().unwrap();
            let routes = Router::new()
                .route("/adapters", any(list))
                .route("/adapters/{*key}", any(object))
                .with_state(bucket);
            tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
            address
        });
        self.address = bound.await.unwrap();
        self.open = Some(runtime);
    }

    fn shut(&mut self) {
        self.open.take().unwrap().shutdown_background();
    }

    fn set_mood(&self, mood: Mood) {
        *self.bucket.mood.lock().unwrap() = mood;
    }

    /// A server on the bucket.
    fn server(&self) -> Server {
        let endpoint = format!("http://{}", self.address);
        let environment = [
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "y"),
            ("AWS_REGION", "us-east-1"),
        ];
        Server::start_in(&environment, &["--adapters", "s3://adapters/team", "--adapters-interval", "100ms"])
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.shutdown_background();
        }
    }
}

const EXPIRED: &str =
    "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";

fn tag(bytes: &Bytes) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:x}\"", hasher.finish())
}

impl Bucket {
    fn refusal(&self) -> Option<Response> {
        let mood = *self.mood.lock().unwrap();
        (mood == Mood::Expired).then(|| (StatusCode::BAD_REQUEST, EXPIRED).into_response())
    }
}

async fn list(State(bucket): State<Arc<Bucket>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    if let Some(refusal) = bucket.refusal() {
        return refusal;
    }
    let prefix = query.get("prefix").cloned().unwrap_or_default();
    let objects = bucket.objects.lock().unwrap();
    let contents = objects.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(key, bytes)| {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-24T12:00:00.000Z</LastModified><ETag>{}</ETag>\
             <Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
            tag(bytes).replace('"', "&quot;"),
            bytes.len()
        )
    });
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>adapters</Name>\
         <IsTruncated>false</IsTruncated>{}</ListBucketResult>",
        contents.collect::<String>()
    )
    .into_response()
}

async fn object(
    State(bucket): State<Arc<Bucket>>,
    Path(key): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refusal) = bucket.refusal() {
        return refusal;
    }
    let mut objects = bucket.objects.lock().unwrap();
    let known = objects.get(&key).cloned();
    let lost = headers.contains_key(header::IF_NONE_MATCH) && known.is_some()
        || headers
            .get(header::IF_MATCH)
            .is_some_and(|seen| Some(seen.to_str().unwrap().to_owned()) != known.as_ref().map(tag));
    if lost {
        return StatusCode::PRECONDITION_FAILED.into_response();
    }
    match (method, known) {
        (Method::PUT, _) => {
            let tag = tag(&body);
            objects.insert(key, body);
            [(header::ETAG, tag)].into_response()
        }
        (Method::GET | Method::HEAD, Some(bytes)) => {
            let modified = "Tue, 24 Nov 2026 12:00:00 GMT".to_owned();
            ([(header::ETAG, tag(&bytes)), (header::LAST_MODIFIED, modified)], bytes).into_response()
        }
        (Method::DELETE, _) => {
            objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response(),
    }
}

async fn upload(server: &Server, name: &str) -> (u16, Value) {
    let file = |name: &str| Part::bytes(fs::read(repo("adapters/sst2").join(name)).unwrap());
    let card = Part::bytes(format!("description = \"{name}\"\n").into_bytes());
    let form = Form::new()
        .part("config", file("adapter_config.json"))
        .part("weights", file("adapter_model.safetensors"))
        .part("card", card);
    let put =
        client().put(format!("{}/v1/adapters/{name}", server.http)).multipart(form).send().await.unwrap();
    (put.status().as_u16(), put.json().await.unwrap())
}

/// Asks an adapter; the status and the error's code, if there is one.
async fn ask(server: &Server, name: &str) -> (u16, Option<String>) {
    let body = json!({"adapter": name, "prompt": "sentence: a warm and funny film .", "max_tokens": 2});
    let answer = client().post(format!("{}/v1/generate", server.http)).json(&body).send().await.unwrap();
    let status = answer.status().as_u16();
    let answer: Value = answer.json().await.unwrap();
    (status, answer["error"]["code"].as_str().map(str::to_owned))
}

async fn ready(server: &Server) -> (u16, Value) {
    let answer = client().get(format!("{}/health/ready", server.admin)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Waits until the server is well, or lists can't be had for this reason; it is ready all the time.
async fn until(server: &Server, reason: Option<&str>) {
    loop {
        let (status, told) = ready(server).await;
        assert_eq!(status, 200, "{told}");
        let parts = told["degraded"].as_array().cloned().unwrap_or_default();
        match reason {
            None if parts.is_empty() => return assert_eq!(told, json!({"status": "ok"})),
            Some(reason)
                if parts.iter().any(|part| part["operation"] == "list" && part["reason"] == reason) =>
            {
                return assert_eq!(told["status"], "degraded");
            }
            _ => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_goes_away_or_refuses_costs_only_what_is_not_in_memory() {
    let mut door = Door::open().await;
    let first = door.server();
    for name in ["one", "two", "three"] {
        assert_eq!(upload(&first, name).await.0, 201, "{name}");
    }
    drop(first);
    let server = door.server();
    assert_eq!(ask(&server, "one").await, (200, None));
    let fault = |reason: &str| format!("dept_adapter_store_fault{{operation=\"list\",reason=\"{reason}\"}}");
    assert_eq!(server.metric(&fault("unreachable")).await, 0.0);

    door.shut();
    until(&server, Some("unreachable")).await;
    assert_eq!(server.metric(&fault("unreachable")).await, 1.0);
    assert_eq!(ask(&server, "one").await, (200, None), "what is in memory is served");
    assert_eq!(ask(&server, "two").await, (503, Some("not_ready".to_owned())));
    assert_eq!(ask(&server, "elsewhere").await, (503, Some("not_ready".to_owned())), "who can tell?");
    let (status, told) = upload(&server, "four").await;
    assert_eq!((status, &told["error"]["code"]), (503, &json!("not_ready")), "{told}");
    door.reopen().await;
    until(&server, None).await;
    assert_eq!(server.metric(&fault("unreachable")).await, 0.0);
    assert_eq!(ask(&server, "two").await, (200, None));
    assert_eq!(upload(&server, "four").await.0, 201);

    door.set_mood(Mood::Expired);
    until(&server, Some("denied")).await;
    for name in ["one", "two", "four"] {
        assert_eq!(ask(&server, name).await, (200, None), "{name}");
    }
    assert_eq!(ask(&server, "three").await, (503, Some("not_ready".to_owned())));
    let (status, told) = upload(&server, "five").await;
    assert_eq!((status, &told["error"]["code"]), (503, &json!("not_ready")), "{told}");
    door.set_mood(Mood::Well);
    until(&server, None).await;
    assert_eq!(ask(&server, "three").await, (200, None));
    assert_eq!(upload(&server, "five").await.0, 201);

    let log = server.log();
    assert!(log.contains("the adapter store works again"), "{log}");
    let told = log.matches("the adapter store fails").count();
    assert!((2..=6).contains(&told), "each change once, not each try: {told} in\n{log}");
}

#[tokio::test]
async fn a_server_whose_bucket_does_not_answer_does_not_start() {
    let mut door = Door::open().await;
    door.shut();
    let output = crate::support::process::dept(&[
        "serve",
        "--adapters",
        "s3://adapters/team",
        "--http",
        "127.0.0.1:0",
    ])
    .args(["--grpc", "off", "--admin", "127.0.0.1:0"])
    .env("AWS_ENDPOINT", format!("http://{}", door.address))
    .envs([("AWS_ALLOW_HTTP", "true"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")])
    .output()
    .unwrap();
    let said = crate::support::process::said(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("the adapter store does not answer"), "{said}");
}

#[tokio::test]
async fn a_server_that_waits_for_a_pinned_adapter_serves_and_is_not_ready() {
    let root = tempfile::tempdir().unwrap();
    let store = root.path().to_str().unwrap();
    let pin = async |http: &str, pinned: bool| {
        let change =
            client().patch(format!("{http}/v1/adapters/broken")).json(&json!({"pinned": pinned})).send();
        assert_eq!(change.await.unwrap().status(), 200);
    };
    let first = Server::start(&["--adapters", store]);
    assert_eq!(upload(&first, "broken").await.0, 201);
    pin(&first.http, true).await;
    drop(first);
    fs::remove_dir_all(root.path().join(".store/v1/blobs")).unwrap();

    let flags = ["--adapters", store, "--adapters-interval", "50ms", "--wait-for-pinned"];
    let mut waiting = Process::spawn(&[], &flags);
    let line = waiting.until(|process| {
        let log = process.log();
        log.split_inclusive('\n')
            .find(|line| line.contains("not ready yet") && line.ends_with('\n'))
            .map(str::to_owned)
    });
    let address = |door: &str| {
        let words = line.split_whitespace();
        let address = words.filter_map(|word| word.strip_prefix(door)?.strip_prefix('=')).next();
        format!("http://{}", address.unwrap())
    };
    assert!(!waiting.has_port_file(), "who waits for the file waits for readiness");
    let told = client().get(format!("{}/health/ready", address("admin"))).send().await.unwrap();
    assert_eq!(told.status(), 503);
    let told: Value = told.json().await.unwrap();
    assert_eq!(told["error"]["code"], json!("not_ready"), "{told}");
    let asked = client().post(format!("{}/v1/generate", address("http")));
    let asked = asked.json(&json!({"prompt": "a", "max_tokens": 1})).send().await.unwrap();
    assert_eq!(asked.status(), 200, "requests are served");

    // Told to end, one that waits does, and is never ready.
    let mut other = Process::spawn(&[], &flags);
    other.until(|process| process.log().contains("not ready yet").then_some(()));
    other.signal("-TERM");
    assert!(other.end().success(), "{}", other.log());
    assert!(!other.log().contains(" ready: "), "{}", other.log());

    pin(&address("http"), false).await;
    assert_eq!(ready(&waiting.ready()).await, (200, json!({"status": "ok"})));
}
