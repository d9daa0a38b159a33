//! Adapters loaded by a path on the server, in vLLM's words.

use std::{fs, sync::Arc};

use serde_json::json;

use super::{
    adapters::{files, shop_with},
    keyed::{Keyed, file, key, with_key},
    kit::{ask, get, post},
};
use crate::{adapter::LoadRoot, tenancy::Scope};

/// A root with two adapters.
fn load_root() -> (tempfile::TempDir, Arc<LoadRoot>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("one", 1.0), ("team/two", 2.0)] {
        let (at, files) = (folder.path().join(name), files(value));
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("adapter_config.json"), files.config).unwrap();
        fs::write(at.join("adapter_model.safetensors"), files.weights).unwrap();
    }
    let root = Arc::new(LoadRoot::open(folder.path()).unwrap());
    (folder, root)
}

#[tokio::test]
async fn a_controller_loads_and_unloads_as_it_does_elsewhere() {
    let (folder, root) = load_root();
    let shop = shop_with(|options| options.load_root = Some(root)).await;
    let load = async |body| ask(&shop.app, post("/v1/load_lora_adapter", body)).await;
    let one = json!({"lora_name": "task", "lora_path": "one", "lora_int_id": 7}).to_string();
    let loaded = load(one.clone()).await;
    assert_eq!(
        (loaded.status.as_u16(), loaded.text()),
        (200, "Success: LoRA adapter 'task' added successfully.")
    );
    assert_eq!(loaded.header("content-type"), Some("text/plain; charset=utf-8"));
    let shown = ask(&shop.app, get("/v1/adapters/task")).await.json();
    assert_eq!((&shown["namespace"], &shown["method"]), (&json!("home"), &json!("pt")));
    assert_eq!(load(one).await.status, 200, "the same again is no change");
    let versions = ask(&shop.app, get("/v1/adapters/task/versions")).await.json();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 1);

    let whole = folder.path().join("team/two");
    let mut two = json!({"lora_name": "task", "lora_path": whole});
    let taken = load(two.to_string()).await;
    assert_eq!((taken.error().0, taken.error().1.as_str()), (400, "invalid_request"));
    assert_eq!(taken.error().2, "lora_name");
    assert!(taken.error().3.contains("The lora adapter 'task' has already been loaded"), "{}", taken.text());
    two["load_inplace"] = true.into();
    assert_eq!(load(two.to_string()).await.status, 200);
    let replaced = ask(&shop.app, get("/v1/adapters/task")).await.json();
    assert_ne!(replaced["version"], shown["version"]);

    let unload = async |name: &str| {
        ask(&shop.app, post("/v1/unload_lora_adapter", json!({"lora_name": name}).to_string())).await
    };
    assert_eq!(shop.send("PUT", "/v1/aliases/live", r#"{"target": "task"}"#).await.status, 201);
    assert_eq!(unload("task").await.error().0, 409);
    assert_eq!(unload("live").await.error().0, 409, "an alias is no adapter");
    assert_eq!(shop.send("DELETE", "/v1/aliases/live", "").await.status, 204);
    assert_eq!(unload("task").await.text(), "Success: LoRA adapter 'task' removed successfully.");
    let gone = unload("task").await;
    assert_eq!((gone.error().0, gone.error().1.as_str()), (404, "adapter_not_found"));
}

#[tokio::test]
async fn what_leads_elsewhere_is_refused_and_changes_nothing() {
    let (folder, root) = load_root();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("secret")).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(folder.path().join("one").join(file), outside.path().join("secret").join(file)).unwrap();
    }
    std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("link")).unwrap();
    fs::create_dir_all(folder.path().join("empty")).unwrap();
    fs::create_dir_all(folder.path().join("nan")).unwrap();
    let nan = files(f32::NAN);
    fs::write(folder.path().join("nan/adapter_config.json"), nan.config).unwrap();
    fs::write(folder.path().join("nan/adapter_model.safetensors"), nan.weights).unwrap();
    let shop = shop_with(|options| options.load_root = Some(root)).await;
    let before = shop.contents();
    let secret = outside.path().join("secret");
    let cases = [
        (json!("../secret"), 400, "invalid_request"),
        (json!("one/../../secret"), 400, "invalid_request"),
        (json!(secret), 400, "invalid_request"),
        (json!("/etc"), 400, "invalid_request"),
        (json!("link"), 400, "invalid_request"),
        (json!(""), 400, "invalid_request"),
        (json!("one\u{0}"), 400, "invalid_request"),
        (json!(["one"]), 400, "invalid_request"),
        (json!("none"), 404, "adapter_not_found"),
        (json!("empty"), 422, "invalid_adapter"),
        (json!("nan"), 422, "invalid_adapter"),
    ];
    for (path, status, code) in cases {
        let body = json!({"lora_name": "task", "lora_path": path}).to_string();
        let answer = ask(&shop.app, post("/v1/load_lora_adapter", body)).await;
        let (found, found_code, param, message) = answer.error();
        assert_eq!((found, found_code.as_str()), (status, code), "{path}: {message}");
        assert!(!message.contains(folder.path().to_str().unwrap()), "{message}");
        assert!(status == 422 || param == "lora_path", "{path}: {param}");
    }
    for (body, param) in [
        (json!({"lora_path": "one"}), "lora_name"),
        (json!({"lora_name": "task"}), "lora_path"),
        (json!({"lora_name": "Task", "lora_path": "one"}), "lora_name"),
    ] {
        let answer = ask(&shop.app, post("/v1/load_lora_adapter", body.to_string())).await;
        assert_eq!((answer.error().0, answer.error().2), (400, json!(param)));
    }
    assert_eq!(shop.contents(), before);
}

#[tokio::test]
async fn without_a_root_nothing_is_loaded() {
    let shop = shop_with(|_| {}).await;
    let body = json!({"lora_name": "task", "lora_path": "one"}).to_string();
    let answer = ask(&shop.app, post("/v1/load_lora_adapter", body)).await;
    assert_eq!((answer.error().0, answer.error().1.as_str()), (409, "conflict"));
    assert!(answer.error().3.contains("--adapter-load-root"), "{}", answer.text());
}

/// The place of an adapter that a tenant may not use is as closed to changes as that of one that is not there.
#[tokio::test]
async fn a_change_tells_nothing_of_what_a_tenant_may_not_use() {
    let mine = key();
    let scopes = [Scope::Generate, Scope::AdaptersRead, Scope::AdaptersWrite];
    let (_folder, root) = load_root();
    let mut keyed = Keyed::new(&file("acme", &[(&mine, &scopes)], "adapters = [\"c*\"]\nmax_adapters = 0"));
    keyed.stage.options.load_root = Some(root);
    let (app, ..) = keyed.app();
    let send = async |method: &str, path: String, body: serde_json::Value| {
        let mut request = post(&path, body.to_string());
        *request.method_mut() = method.parse().unwrap();
        ask(&app, with_key(request, &mine)).await
    };
    // One is there and hidden, one is not there.
    let mut seen = Vec::new();
    for name in ["pt", "px"] {
        let answers = [
            send("DELETE", format!("/v1/adapters/{name}"), json!(null)).await,
            send("DELETE", format!("/v1/adapters/{name}/versions/{}", "0".repeat(12)), json!(null)).await,
            send("PATCH", format!("/v1/adapters/{name}"), json!({"pinned": true})).await,
            send("DELETE", format!("/v1/aliases/{name}"), json!(null)).await,
            send("PUT", format!("/v1/aliases/{name}"), json!({"target": "cut"})).await,
            send("PUT", "/v1/aliases/cx".into(), json!({"target": name})).await,
            send("POST", "/v1/unload_lora_adapter".into(), json!({"lora_name": name})).await,
            send("POST", "/v1/load_lora_adapter".into(), json!({"lora_name": name, "lora_path": "one"}))
                .await,
        ];
        let shape = |answer: &super::kit::Answer| {
            let (status, code, param, message) = answer.error();
            (status, code, param, message.replace(&format!("'{name}'"), "NAME"))
        };
        seen.push(answers.iter().map(shape).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
    let statuses: Vec<u16> = seen[0].iter().map(|answer| answer.0).collect();
    assert_eq!(statuses, [404, 404, 404, 404, 403, 429, 404, 403]);
    let full =
        send("POST", "/v1/load_lora_adapter".into(), json!({"lora_name": "cx", "lora_path": "one"})).await;
    assert_eq!((full.error().0, full.error().1.as_str()), (429, "quota_exceeded"));
    assert!(full.error().3.contains("this tenant has 0 adapters and aliases"), "{}", full.text());
}
