//! Keys and scopes on every route, and what a tenant may see.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, header},
    middleware::from_fn_with_state,
    routing,
};
use serde_json::{Value, json};

use super::{
    keyed::{Keyed, file, generate_as, key, with_key},
    kit::{Answer, ask, get, post, say},
};
use crate::{
    api::http::{
        Doorkeeper, Frame, Hosts, Origins,
        access::{Access, declared},
        authorise, dressed,
        failure::written,
        openapi,
    },
    tenancy::{ApiKey, Scope},
};

/// Every method and route of the description, and those that it leaves out.
fn operations() -> Vec<(Method, String)> {
    let description = serde_json::to_value(openapi()).unwrap();
    let mut all = vec![(Method::GET, "/openapi.json".to_owned()), (Method::GET, "/metrics".to_owned())];
    for (path, item) in description["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            if let Ok(method) = method.parse::<Method>()
                && [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(&method)
            {
                all.push((method, path.clone()));
            }
        }
    }
    assert!(all.len() > 8, "{all:?}");
    all
}

/// A request to the route, with a name where it has one.
fn to_route(method: &Method, path: &str) -> Request<Body> {
    let path: Vec<&str> =
        path.split('/').map(|part| if part.starts_with('{') { "sst2" } else { part }).collect();
    Request::builder().method(method).uri(path.join("/")).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_route_asks_for_its_scope_and_nothing_else() {
    let (some, lacking) = (Scope::ALL.map(|_| key()), Scope::ALL.map(|_| key()));
    let others =
        Scope::ALL.map(|one| Scope::ALL.into_iter().filter(|&scope| scope != one).collect::<Vec<_>>());
    let mut keys: Vec<(&ApiKey, &[Scope])> = Vec::new();
    for at in 0..Scope::ALL.len() {
        keys.push((&some[at], &Scope::ALL[at..=at]));
        keys.push((&lacking[at], &others[at]));
    }
    let (app, ..) = Keyed::new(&file("acme", &keys, "")).app();
    for (method, path) in operations() {
        let access = declared(&method, &path);
        let scope = match access.unwrap_or_else(|| panic!("{method} {path} has no line in the table")) {
            Access::Free => {
                assert_eq!(ask(&app, to_route(&method, &path)).await.status, 200, "{method} {path}");
                continue;
            }
            Access::Needs(scope) => scope,
        };
        let at = Scope::ALL.iter().position(|&one| one == scope).unwrap();
        let answer = ask(&app, to_route(&method, &path)).await;
        assert_eq!((answer.error().0, answer.error().1.as_str()), (401, "unauthorized"), "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let stranger = ask(&app, with_key(to_route(&method, &path), &key())).await;
        assert_eq!(stranger.error().1, "unauthorized", "{method} {path}");
        let answer = ask(&app, with_key(to_route(&method, &path), &lacking[at])).await;
        assert_eq!((answer.error().0, answer.error().1.as_str()), (403, "forbidden"), "{method} {path}");
        assert!(answer.error().3.contains(&format!("'{scope}'")), "{}", answer.error().3);
        let allowed = ask(&app, with_key(to_route(&method, &path), &some[at])).await.status;
        assert!(![401, 403].contains(&allowed.as_u16()), "{method} {path}: {allowed}");
    }
    // HEAD is as shut as GET; what is no route has nothing to hide.
    let head = Request::head("/v1/adapters").body(Body::empty()).unwrap();
    assert_eq!(ask(&app, head).await.status, 401);
    let no_route = Request::put("/v1/generate").body(Body::empty()).unwrap();
    assert_eq!(ask(&app, no_route).await.status, 405);
    assert_eq!(ask(&app, get("/nothing")).await.status, 404);
}

#[tokio::test]
async fn a_route_that_nothing_is_said_of_is_the_admins() {
    let (user, admin) = (key(), key());
    let most = [Scope::Generate, Scope::AdaptersRead, Scope::AdaptersWrite];
    let text = file("acme", &[(&user, &most), (&admin, &[Scope::Admin])], "");
    let Keyed { stage, folder: _folder, .. } = Keyed::new(&text);
    let frame = Frame {
        metrics: stage.metrics(),
        readiness: stage.service.readiness.clone(),
        stuck_after: stage.options.stuck_after,
        hosts: Hosts::Keyed,
        origins: Origins::default(),
        written,
        traces: None,
    };
    let keeper = Doorkeeper { gate: stage.gate, declared };
    let routes = Router::new().route("/v1/unsaid", routing::get(|| async { "said" }));
    let app = dressed(routes.route_layer(from_fn_with_state(keeper, authorise)), frame);
    assert_eq!(ask(&app, get("/v1/unsaid")).await.status, 401);
    assert_eq!(ask(&app, with_key(get("/v1/unsaid"), &user)).await.error().1, "forbidden");
    assert_eq!(ask(&app, with_key(get("/v1/unsaid"), &admin)).await.text(), "said");
}

#[tokio::test]
async fn the_description_says_which_scope_a_route_needs() {
    let description = serde_json::to_value(openapi()).unwrap();
    let security = &description["paths"]["/v1/adapters"]["get"]["security"];
    assert_eq!(security, &json!([{"api_key": ["adapters:read"]}, {}]));
    assert!(description["paths"]["/health/live"]["get"].get("security").is_none());
    assert_eq!(description["components"]["securitySchemes"]["api_key"]["scheme"], "bearer");
}

/// What a client can tell of an answer, but for what it said itself.
fn shape(answer: &Answer, name: &str) -> (u16, Vec<(String, String)>, String) {
    let id = answer.header("x-request-id").unwrap();
    let headers = answer.headers.iter().filter(|(name, _)| *name != "x-request-id");
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let body = answer.text().replace(id, "ID").replace(&format!("'{name}'"), "NAME");
    (answer.status.as_u16(), headers.collect(), body)
}

#[tokio::test]
async fn what_a_tenant_may_not_use_is_as_if_it_were_not_there() {
    let mine = key();
    let (app, ..) = Keyed::new(&file("acme", &[(&mine, &Scope::ALL)], "adapters = [\"sst2\", \"c*\"]")).app();
    let open = super::kit::server();
    let hidden = ask(&open, get("/v1/adapters/pt")).await.json()["version"].as_str().unwrap().to_owned();
    let pins = [String::new(), format!("@{hidden}"), format!("@{}", "0".repeat(12))];
    for pin in pins {
        let mut seen = Vec::new();
        // One is there and hidden, one is not there.
        for name in ["pt", "px"] {
            let body = json!({"adapter": format!("{name}{pin}"), "prompt": "a"});
            let generated = generate_as(&app, &mine, body.clone()).await;
            let tokenized = ask(&app, with_key(post("/v1/tokenize", body.to_string()), &mine)).await;
            let shown = ask(&app, with_key(get(&format!("/v1/adapters/{name}")), &mine)).await;
            assert_eq!(generated.error().1, "adapter_not_found");
            seen.push([shape(&generated, name), shape(&tokenized, name), shape(&shown, name)]);
        }
        assert_eq!(seen[0], seen[1], "{pin}");
    }
    let list = ask(&app, with_key(get("/v1/adapters"), &mine)).await.json();
    let names: Vec<_> = list["adapters"].as_array().unwrap().iter().map(|a| a["name"].clone()).collect();
    assert_eq!(names, ["cut", "sst2"]);
    let page = ask(&app, with_key(get("/v1/adapters?limit=1&after=cut"), &mine)).await.json();
    assert_eq!((&page["adapters"][0]["name"], &page["next"]), (&json!("sst2"), &Value::Null));
    assert_eq!(generate_as(&app, &mine, json!({"adapter": "cut", "prompt": "a"})).await.status, 200);
    assert_eq!(
        generate_as(&app, &mine, json!({"prompt": "a"})).await.status,
        200,
        "the bare model is everyone's"
    );
}

#[tokio::test]
async fn a_sequence_is_its_tenants_and_its_priority_is_bounded() {
    let mine = key();
    let Keyed { stage, folder: _folder, .. } =
        Keyed::new(&file("acme", &[(&mine, &Scope::ALL)], "max_priority = 2"));
    let (send, seen) = std::sync::mpsc::channel();
    let app = stage.with_engine(move |arrival| {
        send.send((arrival.submission.tenant.clone(), arrival.submission.priority)).unwrap();
        say(&arrival, &[], "");
    });
    for (priority, status) in [(2, 200), (-1000, 200), (3, 400), (i32::MAX, 400)] {
        let answer = generate_as(&app, &mine, json!({"prompt": "a", "priority": priority})).await;
        assert_eq!(answer.status, status, "{priority}");
        if status == 400 {
            assert_eq!(answer.error().2, "priority");
            assert!(answer.error().3.contains("up to 2"), "{}", answer.error().3);
        } else {
            let (tenant, ran) = seen.recv().unwrap();
            assert_eq!((tenant.as_str(), ran), ("acme", priority));
        }
    }
}

#[tokio::test]
async fn keys_are_exchanged_under_load() {
    let (old, new) = (key(), key());
    let both = file("acme", &[(&old, &Scope::ALL), (&new, &Scope::ALL)], "");
    let keyed = Keyed::new(&both);
    let gate = Arc::clone(&keyed.stage.gate);
    let (app, _, folder) = keyed.app();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (app, stopped, header) = (app.clone(), stopped.clone(), format!("Bearer {}", new.reveal()));
            tokio::spawn(async move {
                let mut count = 0;
                while !*stopped.borrow() {
                    let mut request = get("/v1/adapters/sst2");
                    request.headers_mut().insert(header::AUTHORIZATION, header.parse().unwrap());
                    assert_eq!(ask(&app, request).await.status, 200);
                    count += 1;
                    tokio::task::yield_now().await;
                }
                count
            })
        })
        .collect();
    let path = folder.path().join("keys.toml");
    for round in 0..50 {
        let sound = round % 3 != 2;
        let text = match round % 3 {
            0 => file("acme", &[(&new, &Scope::ALL)], ""),
            1 => both.clone(),
            _ => "[tenants".to_owned(),
        };
        std::fs::write(&path, text).unwrap();
        assert_eq!(gate.reload().is_ok(), sound);
        let with_old = ask(&app, with_key(get("/v1/adapters/sst2"), &old)).await.status;
        assert_eq!(with_old, if round % 3 == 0 { 401 } else { 200 }, "{round}");
        tokio::task::yield_now().await;
    }
    stop.send(true).unwrap();
    for task in load {
        assert!(task.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_refused_request_is_not_read() {
    let mine = key();
    let keyed = Keyed::new(&file("acme", &[(&mine, &Scope::ALL)], ""));
    let (app, ..) = keyed.app();
    let endless = Body::from_stream(futures::stream::pending::<Result<axum::body::Bytes, std::io::Error>>());
    let answer =
        tokio::time::timeout(Duration::from_secs(60), ask(&app, post("/v1/generate", endless))).await;
    assert_eq!(answer.unwrap().status, 401);
}
