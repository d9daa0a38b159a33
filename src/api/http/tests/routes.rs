use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::kit::{Stage, ask, generate, get, post, server};
use crate::{
    api::{
        ErrorCode,
        http::{Hosts, admin, openapi},
    },
    contract,
};

#[tokio::test]
async fn adapters_are_listed_in_pages() {
    let app = server();
    let names = |page: &Value| -> Vec<String> {
        page["adapters"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap().into()).collect()
    };
    let all = ask(&app, get("/v1/adapters")).await.json();
    assert_eq!((names(&all), &all["next"]), (vec!["cut".into(), "pt".into(), "sst2".into()], &Value::Null));
    let first = ask(&app, get("/v1/adapters?limit=2")).await.json();
    assert_eq!((names(&first), &first["next"]), (vec!["cut".into(), "pt".into()], &json!("pt")));
    let second = ask(&app, get("/v1/adapters?limit=2&after=pt")).await.json();
    assert_eq!((names(&second), &second["next"]), (vec!["sst2".into()], &Value::Null));
}

#[tokio::test]
async fn adapters_are_searched_by_a_part_of_their_names() {
    let app = server();
    for (query, expected) in [
        ("search=T", json!(["cut", "pt", "sst2"])),
        ("search=st2", json!(["sst2"])),
        ("search=nope", json!([])),
    ] {
        let page = ask(&app, get(&format!("/v1/adapters?{query}"))).await.json();
        let names: Value =
            page["adapters"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
        assert_eq!((names, &page["next"]), (expected, &Value::Null), "{query}");
    }
    let page = ask(&app, get("/v1/adapters?search=t&limit=1&after=cut")).await.json();
    assert_eq!((&page["adapters"][0]["name"], &page["next"]), (&json!("pt"), &json!("pt")));
}

#[tokio::test]
async fn an_adapter_says_what_it_is() {
    let answer = ask(&server(), get("/v1/adapters/sst2")).await;
    let mut json = answer.json();
    let version = json["version"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("etag"), Some(format!("\"{version}\"").as_str()));
    json["version"].take();
    let card = json!({"description": "d", "template": "sentence: {text}", "max_tokens": 3,
                      "labels": {"bad": "negative", "good": "positive"}});
    let expected = json!({
        "name": "sst2", "namespace": "shared", "version": null, "method": "dept", "prompt_length": 2, "rank": 1, "max_length": 6,
        "parameters": 18, "bytes": 72, "created_at": "1970-01-01T00:00:00Z", "residency": "host",
        "pinned": true, "card": card,
    });
    assert_eq!(json, expected);
    assert_eq!(ask(&server(), get("/v1/adapters/pt")).await.json()["max_length"], Value::Null);
    let pinned = json!({"adapter": format!("sst2@{}", &version[7..19]), "prompt": "a"});
    assert_eq!(generate(&server(), pinned).await.json()["adapter_version"], version);
}

#[tokio::test]
async fn text_to_tokens_and_back() {
    let app = server();
    let answer = ask(&app, post("/v1/tokenize", r#"{"prompt": "a film"}"#)).await;
    assert_eq!(answer.json(), json!({"ids": [7, 6, 1], "pieces": ["a", "film", "</s>"], "count": 3}));
    let body = r#"{"adapter": "sst2", "inputs": {"text": "a"}}"#;
    assert_eq!(ask(&app, post("/v1/tokenize", body)).await.json()["ids"], json!([5, 7, 1]));
    let answer = ask(&app, post("/v1/detokenize", r#"{"ids": [7, 6, 1]}"#)).await;
    assert_eq!(answer.json(), json!({"text": "a film"}));
    assert_eq!(ask(&app, post("/v1/detokenize", r#"{"ids": []}"#)).await.json(), json!({"text": ""}));
}

#[tokio::test]
async fn a_clients_request_id_is_kept_when_it_is_one() {
    let app = server();
    for (sent, kept) in [("abc-1", true), ("", false), ("a b", false), (&"x".repeat(129), false)] {
        let mut request = get("/v1/adapters");
        request.headers_mut().insert("x-request-id", sent.parse().unwrap());
        let answer = ask(&app, request).await;
        assert_eq!(answer.header("x-request-id") == Some(sent), kept, "{sent}");
    }
    let own = ask(&app, get("/health/live")).await;
    assert_eq!(own.header("x-request-id").unwrap().len(), 36);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_outcome() {
    let stage = Stage::new();
    let metrics = stage.metrics();
    let app = stage.with_engine(|arrival| super::kit::say(&arrival, &[], ""));
    generate(&app, json!({"adapter": "sst2", "prompt": "a", "n": 2})).await;
    generate(&app, json!({"prompt": "a", "stream": true})).await;
    generate(&app, json!({"prompt": ""})).await;
    ask(&app, get("/v1/adapters/sst2")).await;
    ask(&app, get("/nothing/of/the/kind")).await;
    let text = metrics.render();
    for line in [
        r#"dept_requests_total{endpoint="/v1/generate",outcome="ok"} 2"#,
        r#"dept_requests_total{endpoint="/v1/generate",outcome="invalid_request"} 1"#,
        r#"dept_requests_total{endpoint="/v1/adapters/{name}",outcome="ok"} 1"#,
        r#"dept_requests_total{endpoint="other",outcome="not_found"} 1"#,
        r#"dept_request_duration_seconds_count 3"#,
        r#"dept_adapter_requests_total{adapter="sst2"} 2"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn metrics_are_the_admins_unless_the_public_door_is_told() {
    assert_eq!(ask(&server(), get("/metrics")).await.status, 404);
    let mut stage = Stage::new();
    stage.options.metrics = true;
    let service = Arc::new(stage.service.clone());
    let (app, _inbox) = stage.quiet();
    let (metrics, readiness) = (service.metrics.clone(), service.readiness.clone());
    let admin = admin(metrics, readiness, Duration::from_secs(120), Hosts::of(([127, 0, 0, 1], 8081).into()));
    for app in [&app, &admin] {
        let answer = ask(app, get("/metrics")).await;
        assert!(answer.text().contains("# TYPE dept_build_info gauge"));
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        assert_eq!(ask(app, get("/health/ready")).await.json(), json!({"status": "ok"}));
    }
    assert_eq!(ask(&admin, get("/v1/adapters")).await.status, 404);
}

#[tokio::test]
async fn a_step_that_does_not_end_makes_the_server_not_alive() {
    let mut stage = Stage::new();
    stage.options.stuck_after = Duration::ZERO;
    let metrics = stage.metrics();
    let (app, _inbox) = stage.quiet();
    assert_eq!(ask(&app, get("/health/live")).await.status, 200);
    metrics.step_age.began(Instant::now());
    let answer = ask(&app, get("/health/live")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["code"], "engine_stuck");
    assert_eq!(ask(&app, get("/health/ready")).await.status, 200);
    metrics.step_age.ended();
    assert_eq!(ask(&app, get("/health/live")).await.status, 200);
}

#[test]
fn openapi_yaml_is_the_code() {
    contract::hold("openapi.yaml", &openapi().to_yaml().unwrap());
}

#[tokio::test]
async fn the_description_is_served_and_knows_every_error() {
    let json = ask(&server(), get("/openapi.json")).await.json();
    assert_eq!(json, serde_json::to_value(openapi()).unwrap());
    assert!(json["openapi"].as_str().unwrap().starts_with("3."));
    let described = json.to_string();
    // Paths and methods that do not exist, heads that are not read, and adapters refused at load have no route.
    let elsewhere = BTreeSet::from(["not_found", "method_not_allowed", "head_too_large", "invalid_adapter"]);
    for row in ErrorCode::table().iter().filter(|row| !elsewhere.contains(row.name)) {
        assert!(described.contains(&format!("`{}`", row.name)), "{} is described nowhere", row.name);
    }
}
