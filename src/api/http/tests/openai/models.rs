use serde_json::json;

use super::{
    super::{
        keyed::{Keyed, file, key, with_key},
        kit::{ask, get, server},
    },
    complete, completion,
};
use crate::tenancy::Scope;

#[tokio::test]
async fn the_backbone_comes_first_and_then_the_adapters() {
    let json = ask(&server(), get("/v1/models")).await.json();
    assert_eq!(json["object"], "list");
    let ids: Vec<_> = json["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["tiny", "cut", "pt", "sst2"]);
    let mut backbone = json["data"][0].clone();
    assert!(backbone["created"].take().as_u64().unwrap() > 1_700_000_000);
    assert_eq!(
        backbone,
        json!({"id": "tiny", "object": "model", "created": null, "owned_by": "dept", "parent": null})
    );
    let adapter =
        json!({"id": "sst2", "object": "model", "created": 0, "owned_by": "shared", "parent": "tiny"});
    assert_eq!(json["data"][3], adapter);
    assert_eq!(ask(&server(), get("/v1/models/sst2")).await.json(), adapter);
    assert_eq!(ask(&server(), get("/v1/models/tiny")).await.json()["owned_by"], "dept");
}

#[tokio::test]
async fn a_version_can_be_named() {
    let app = server();
    let version = ask(&app, get("/v1/adapters/sst2")).await.json()["version"].as_str().unwrap().to_owned();
    let name = format!("sst2@{}", &version[7..19]);
    assert_eq!(ask(&app, get(&format!("/v1/models/{name}"))).await.json()["id"], name);
    let json = complete(&app, json!({"model": name, "prompt": "a"})).await.json();
    assert_eq!(
        (json["model"].as_str(), &json["usage"]["prompt_tokens_details"]["virtual_tokens"]),
        (Some(&*name), &json!(2))
    );
    assert_eq!(json["system_fingerprint"], format!("fp_000000000000_{}", &version[7..19]));
}

#[tokio::test]
async fn what_is_no_model_is_404() {
    let app = server();
    for name in ["gpt-4o", "GPT 4", "meta-llama/Llama-3", "sst2@000000000000", "sst2@x"] {
        let error = complete(&app, json!({"model": name, "prompt": "a"})).await.error();
        assert_eq!(
            (error.0, error.1.as_str(), error.2.as_str()),
            (404, "adapter_not_found", Some("model")),
            "{name}"
        );
        assert!(error.3.starts_with(&format!("there is no model '{name}'")), "{}", error.3);
    }
    let error = ask(&app, get("/v1/models/gpt-4o")).await.error();
    assert_eq!((error.0, error.2.as_str()), (404, Some("model")));
}

#[tokio::test]
async fn who_may_not_use_an_adapter_does_not_see_it() {
    let mine = key();
    let text = file("acme", &[(&mine, &[Scope::Generate, Scope::AdaptersRead])], "adapters = [\"pt\"]");
    let (app, ..) = Keyed::new(&text).app();
    let json = ask(&app, with_key(get("/v1/models"), &mine)).await.json();
    let ids: Vec<_> = json["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["tiny", "pt"]);
    let hidden =
        ask(&app, with_key(completion(json!({"model": "sst2", "prompt": "a"})), &mine)).await.error();
    let absent =
        ask(&app, with_key(completion(json!({"model": "sst3", "prompt": "a"})), &mine)).await.error();
    assert_eq!((hidden.0, hidden.1, hidden.2), (absent.0, absent.1, absent.2));
    assert_eq!(hidden.3.replace("sst2", "sst3"), absent.3);
    assert_eq!(ask(&app, get("/v1/models")).await.error().0, 401);
    assert_eq!(ask(&app, completion(json!({"model": "tiny", "prompt": "a"}))).await.error().0, 401);
}
