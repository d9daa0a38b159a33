//! The life of an adapter over HTTP, on a real store.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::kit::{Answer, Stage, ask, get, post};
use crate::{
    adapter::{
        BackboneShape, Catalogue, CatalogueConfig, Task, archive, folder::AdapterBytes,
        tensor_file::WeightsFormat,
    },
    api::http::HttpOptions,
    config::Location,
};

pub struct Shop {
    root: tempfile::TempDir,
    pub app: Router,
    /// Keeps the engine's end open.
    _inbox: std::sync::mpsc::Receiver<crate::engine::Command>,
}

/// A catalogue over a store in `root`.
pub async fn stored(root: &Path) -> Catalogue {
    let backbone = BackboneShape { hidden: 4, task: Task::Seq2SeqLm, name: "tiny".into(), fingerprint: None };
    let config = CatalogueConfig {
        location: Some(Location::Folder(root.to_owned())),
        backbone,
        host_bytes: 1 << 20,
        interval: Duration::from_secs(3600),
    };
    Catalogue::open(config, Arc::default()).await.unwrap().0
}

async fn shop() -> Shop {
    shop_with(|_| {}).await
}

/// A server on a store of its own, with other options.
pub async fn shop_with(change: impl FnOnce(&mut HttpOptions)) -> Shop {
    let root = tempfile::tempdir().unwrap();
    let mut stage = Stage::new();
    stage.options.max_adapter_bytes = 20_000;
    change(&mut stage.options);
    stage.service.catalogue = stored(root.path()).await;
    let (app, inbox) = stage.quiet();
    Shop { root, app, _inbox: inbox }
}

/// The files of a soft prompt whose every number is `value`.
pub fn files(value: f32) -> AdapterBytes {
    let config = json!({"peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 2,
                        "token_dim": 4, "num_transformer_submodules": 1});
    let data: Vec<u8> = std::iter::repeat_n(value, 8).flat_map(f32::to_le_bytes).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 4], &data).unwrap();
    let weights = safetensors::serialize([("prompt_embeddings", view)], None).unwrap();
    let card = Some(b"labels = { good = \"positive\", bad = \"negative\" }\n".to_vec());
    AdapterBytes { config: config.to_string().into(), format: WeightsFormat::Safetensors, weights, card }
}

const BOUNDARY: &str = "a-boundary";

fn multipart(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

fn parts_of(files: &AdapterBytes) -> Vec<u8> {
    let card = files.card.clone().unwrap();
    multipart(&[("config", &files.config), ("weights", &files.weights), ("card", &card)])
}

/// A request of any kind, with headers.
fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=a-boundary");
const JSON: (&str, &str) = ("content-type", "application/json");

impl Shop {
    async fn put(&self, name: &str, value: f32) -> Answer {
        ask(&self.app, request("PUT", &format!("/v1/adapters/{name}"), &[FORM], parts_of(&files(value))))
            .await
    }

    pub async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        ask(&self.app, request(method, path, &[JSON], body.to_owned())).await
    }

    /// Every file under the root, with its bytes.
    pub fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.root.path(), &mut found);
        found
    }
}

fn version(answer: &Answer) -> String {
    answer.json()["version"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_upload_is_created_updated_listed_and_downloaded_again() {
    let shop = shop().await;
    let created = shop.put("task", 1.0).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let mut object = created.json();
    assert_eq!(created.header("etag"), Some(format!("\"{}\"", version(&created)).as_str()));
    object["created_at"].take();
    let expected = json!({
        "name": "task", "namespace": "home", "version": version(&created), "method": "pt", "prompt_length": 2, "rank": 0,
        "max_length": null, "parameters": 8, "bytes": 32, "created_at": null, "residency": "host", "pinned": false,
        "card": {"labels": {"bad": "negative", "good": "positive"}},
    });
    assert_eq!(object, expected);
    let updated = shop.put("task", 2.0).await;
    assert_eq!((updated.status.as_u16(), shop.put("task", 2.0).await.status.as_u16()), (200, 200));
    assert_ne!(version(&created), version(&updated));

    let listed = ask(&shop.app, get("/v1/adapters")).await.json();
    assert_eq!((listed["adapters"].as_array().unwrap().len(), &listed["next"]), (1, &Value::Null));
    let versions = ask(&shop.app, get("/v1/adapters/task/versions")).await.json();
    let versions: Vec<&str> =
        versions["versions"].as_array().unwrap().iter().map(|v| v["version"].as_str().unwrap()).collect();
    assert_eq!(versions, [version(&updated), version(&created)]);

    let old = &version(&created)[7..19];
    let content = ask(&shop.app, get(&format!("/v1/adapters/task@{old}/content"))).await;
    assert_eq!(content.header("content-type"), Some("application/zip"));
    assert_eq!(content.header("content-disposition"), Some("attachment; filename=\"task.zip\""));
    assert_eq!(content.body, archive::pack(&files(1.0)));
    let zip = [("content-type", "application/zip")];
    let copied = ask(&shop.app, request("PUT", "/v1/adapters/copy", &zip, content.body.clone())).await;
    assert_eq!((copied.status.as_u16(), version(&copied)), (201, version(&created)));

    let deleted = shop.send("DELETE", &format!("/v1/adapters/task/versions/{old}"), "").await;
    assert_eq!((deleted.status.as_u16(), deleted.body.len()), (204, 0));
    assert_eq!(ask(&shop.app, get(&format!("/v1/adapters/task@{old}"))).await.status, 404);
    assert_eq!(shop.send("DELETE", "/v1/adapters/task", "").await.status, 204);
    assert_eq!(shop.send("DELETE", "/v1/adapters/task", "").await.error().0, 404);
    let gone =
        ask(&shop.app, post("/v1/generate", json!({"adapter": "task", "prompt": "a"}).to_string())).await;
    assert_eq!(gone.error().1, "adapter_not_found");
}

#[tokio::test]
async fn a_change_is_made_only_on_its_condition() {
    let shop = shop().await;
    let upload = |condition: (&'static str, String), value| {
        let headers = [FORM, (condition.0, &condition.1)];
        request("PUT", "/v1/adapters/task", &headers, parts_of(&files(value)))
    };
    let first = ask(&shop.app, upload(("if-none-match", "*".into()), 1.0)).await;
    assert_eq!(first.status, 201);
    let again = ask(&shop.app, upload(("if-none-match", "*".into()), 2.0)).await;
    assert_eq!((again.error().0, again.error().1), (412, "precondition_failed".into()));
    let tag = format!("\"{}\"", version(&first));
    assert_eq!(ask(&shop.app, upload(("if-match", tag.clone()), 2.0)).await.status, 200);
    assert_eq!(ask(&shop.app, upload(("if-match", tag.clone()), 3.0)).await.status, 412);
    assert_eq!(ask(&shop.app, upload(("if-match", "*".into()), 3.0)).await.status, 200);
    let stale = request("DELETE", "/v1/adapters/task", &[("if-match", &tag)], Body::empty());
    assert_eq!(ask(&shop.app, stale).await.status, 412);
    for (header, value) in [("if-match", "W/\"x\""), ("if-match", "abc"), ("if-none-match", tag.as_str())] {
        let answer = ask(&shop.app, upload((header, value.to_owned()), 4.0)).await;
        assert_eq!(answer.error().0, 400, "{header}: {value}");
    }
}

#[tokio::test]
async fn an_alias_is_set_moved_and_deleted_and_a_pin_stays() {
    let shop = shop().await;
    let first = version(&shop.put("task", 1.0).await);
    let set = shop.send("PUT", "/v1/aliases/live", r#"{"target": "task"}"#).await;
    assert_eq!(
        (set.status.as_u16(), set.json()),
        (201, json!({"alias": "live", "target": format!("task@{first}")}))
    );
    let second = version(&shop.put("task", 2.0).await);
    let shown = ask(&shop.app, get("/v1/adapters/live")).await.json();
    assert_eq!((&shown["version"], &shown["alias_of"]), (&json!(first), &json!(format!("task@{first}"))));
    let moved =
        shop.send("PUT", "/v1/aliases/live", &format!(r#"{{"target": "task@{}"}}"#, &second[7..])).await;
    assert_eq!(moved.status, 200);
    let held = shop.send("DELETE", "/v1/adapters/task", "").await;
    assert_eq!((held.error().0, held.error().1), (409, "conflict".into()));
    assert_eq!(shop.send("PUT", "/v1/aliases/task", r#"{"target": "task"}"#).await.error().0, 409);
    assert_eq!(shop.send("PUT", "/v1/aliases/tiny", r#"{"target": "task"}"#).await.error().0, 409);
    assert_eq!(shop.send("PUT", "/v1/aliases/other", r#"{"target": "none"}"#).await.error().0, 404);
    assert_eq!(shop.send("DELETE", "/v1/aliases/live", "").await.status, 204);
    let pinned = shop.send("PATCH", "/v1/adapters/task", r#"{"pinned": true}"#).await;
    assert_eq!((&pinned.json()["pinned"], &pinned.json()["residency"]), (&json!(true), &json!("host")));
    assert_eq!(shop.send("PATCH", "/v1/adapters/task", r#"{"pinned": 1}"#).await.error().0, 400);
}

#[tokio::test]
async fn what_all_share_is_changed_there_only() {
    let shop = shop().await;
    let shared = request("PUT", "/v1/adapters/common?namespace=shared", &[FORM], parts_of(&files(1.0)));
    let put = ask(&shop.app, shared).await;
    assert_eq!((put.status.as_u16(), &put.json()["namespace"]), (201, &json!("shared")));
    let refused = shop.send("DELETE", "/v1/adapters/common", "").await;
    assert!(refused.error().3.contains("shared by all tenants"), "{}", refused.text());
    assert_eq!(
        shop.send("DELETE", "/v1/adapters/common?namespace=mars", "").await.error().2,
        json!("namespace")
    );
    assert_eq!(shop.send("DELETE", "/v1/adapters/common?namespace=shared", "").await.status, 204);
}

/// Every way to be refused, with its answer; the store stays as it was, byte for byte.
#[tokio::test]
async fn a_refused_upload_leaves_the_store_as_it_was() {
    let shop = shop().await;
    shop.put("task", 1.0).await;
    shop.send("PUT", "/v1/aliases/live", r#"{"target": "task"}"#).await;
    let before = shop.contents();
    let sound = files(2.0);
    let (config, weights) = (&sound.config[..], &sound.weights[..]);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let wide = text(config).replace("\"token_dim\":4", "\"token_dim\":8");
    let causal = text(config).replace("SEQ_2_SEQ_LM", "CAUSAL_LM");
    let nan = files(f32::NAN);
    let zip = archive::pack(&sound);
    let large = vec![0; 30_000];
    let form = |parts: &[(&str, &[u8])]| (FORM.1, multipart(parts));
    let cases = [
        (form(&[("weights", weights)]), 400, "invalid_request", "the part 'config' is missing"),
        (form(&[("config", config)]), 400, "invalid_request", "the part 'weights' is missing"),
        (form(&[("config", config), ("config", config)]), 400, "invalid_request", "'config' is there twice"),
        (
            form(&[("config", config), ("wieghts", weights)]),
            400,
            "invalid_request",
            "'wieghts' is not a part",
        ),
        (form(&[("config", config), ("weights", &large)]), 413, "too_large", "is over 20000 bytes"),
        (form(&[("config", b"{"), ("weights", weights)]), 422, "invalid_adapter", "adapter_config.json"),
        (
            form(&[("config", wide.as_bytes()), ("weights", weights)]),
            422,
            "invalid_adapter",
            "prompt_embeddings",
        ),
        (
            form(&[("config", causal.as_bytes()), ("weights", weights)]),
            422,
            "invalid_adapter",
            "has task_type CAUSAL_LM",
        ),
        (form(&[("config", config), ("weights", &nan.weights)]), 422, "invalid_adapter", "NaN"),
        (
            form(&[("config", config), ("weights", &weights[..40])]),
            422,
            "invalid_adapter",
            "adapter_model.safetensors",
        ),
        (
            form(&[("config", config), ("weights", b"PK\x03\x04junk")]),
            422,
            "invalid_adapter",
            "adapter_model.bin",
        ),
        (
            form(&[("config", config), ("weights", weights), ("card", b"labels = 3")]),
            422,
            "invalid_adapter",
            "card.toml",
        ),
        (("multipart/form-data", Vec::new()), 400, "invalid_request", "the multipart body is malformed"),
        (("application/zip", zip[..zip.len() / 2].to_vec()), 422, "invalid_adapter", "archive"),
        (("application/zip", Vec::new()), 422, "invalid_adapter", "archive"),
        (("application/zip", large.clone()), 413, "too_large", "is over 20000 bytes"),
        (("text/plain", zip.clone()), 415, "unsupported_media_type", "content-type is 'text/plain'"),
    ];
    for ((kind, body), status, code, said) in cases {
        let answer =
            ask(&shop.app, request("PUT", "/v1/adapters/new", &[("content-type", kind)], body)).await;
        let (found, found_code, _, message) = answer.error();
        assert_eq!((found, found_code.as_str()), (status, code), "{message}");
        assert!(message.to_lowercase().contains(&said.to_lowercase()), "{said}: {message}");
    }
    for (name, status) in
        [("UPPER", 400), ("live", 409), ("tiny", 409), (".x", 400), ("a@b", 400), (&"a".repeat(65), 400)]
    {
        let path = format!("/v1/adapters/{name}");
        let answer = ask(&shop.app, request("PUT", &path, &[FORM], parts_of(&sound))).await;
        assert_eq!(answer.error().0, status, "{name}: {}", answer.text());
    }
    assert_eq!(shop.contents(), before);
    let none =
        Request::put("/v1/adapters/new").header(header::CONTENT_LENGTH, "0").body(Body::empty()).unwrap();
    assert_eq!(ask(&shop.app, none).await.error().0, 415);
}

/// A client that reads nothing of what it downloads holds its turn, not the server's memory.
#[tokio::test]
async fn downloads_are_a_few_at_a_time() {
    let shop = shop().await;
    shop.put("task", 1.0).await;
    let path = "/v1/adapters/task/content";
    let expected = archive::pack(&files(1.0));
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(shop.app.clone().oneshot(get(path)).await.unwrap());
    }
    let app = shop.app.clone();
    let waiting = tokio::spawn(async move { ask(&app, get(path)).await });
    for _ in 0..20 {
        assert_eq!(ask(&shop.app, get("/v1/adapters/task")).await.status, 200, "others are served");
    }
    assert!(!waiting.is_finished());
    let read = Answer::of(unread.remove(0)).await;
    assert_eq!(
        (read.header("content-length"), &read.body[..]),
        (Some(&*expected.len().to_string()), &expected[..])
    );
    assert_eq!(waiting.await.unwrap().body, expected);
}
