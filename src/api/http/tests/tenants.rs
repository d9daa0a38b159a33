//! Keys, scopes, quotas and what a tenant may see, on every route.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, header},
    middleware::from_fn_with_state,
    routing,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::kit::{Answer, GOOD, Stage, ask, get, post, say};
use crate::{
    api::http::{
        Door, Frame, Hosts, Origins,
        access::{Access, authorise, declared},
        dressed, openapi,
    },
    engine::Command,
    telemetry::Metrics,
    tenancy::{ApiKey, Gate, Scope},
};

/// A stage with a key file.
struct Keyed {
    folder: TempDir,
    stage: Stage,
    metrics: Arc<Metrics>,
}

impl Keyed {
    fn new(file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys.toml"), file).unwrap();
        let mut stage = Stage::new();
        stage.gate = Arc::new(Gate::with_keys(folder.path().join("keys.toml")).unwrap());
        stage.options.hosts = Hosts::Keyed;
        stage.options.metrics = true;
        let metrics = stage.metrics();
        Self { folder, stage, metrics }
    }

    /// The routes, with an engine that always says `good`.
    fn app(self) -> (Router, Arc<Metrics>, TempDir) {
        let app = self.stage.with_engine(|arrival| say(&arrival, &[(GOOD, "good")], ""));
        (app, self.metrics, self.folder)
    }
}

/// One tenant with these keys, each with its scopes, and `more` lines.
fn file(tenant: &str, keys: &[(&ApiKey, &[Scope])], more: &str) -> String {
    let mut text = format!(
        "[tenants.{tenant}]\nscopes = [\"generate\", \"adapters:read\", \"adapters:write\", \"admin\"]\n{more}\n"
    );
    for (at, (key, scopes)) in keys.iter().enumerate() {
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        text += &format!(
            "[[tenants.{tenant}.keys]]\nname = \"k{at}\"\nhash = \"{}\"\nscopes = {scopes:?}\n",
            key.hash()
        );
    }
    text
}

fn key() -> ApiKey {
    ApiKey::random().unwrap()
}

fn with_key(mut request: Request<Body>, key: &ApiKey) -> Request<Body> {
    let value = format!("Bearer {}", key.reveal());
    request.headers_mut().insert(header::AUTHORIZATION, value.parse().unwrap());
    request
}

async fn generate_as(app: &Router, key: &ApiKey, body: Value) -> Answer {
    ask(app, with_key(post("/v1/generate", body.to_string()), key)).await
}

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
        hosts: Hosts::Keyed,
        origins: Origins::default(),
    };
    let door = Door {
        service: Arc::new(stage.service),
        gate: stage.gate,
        options: Arc::new(stage.options),
        frame: frame.clone(),
    };
    let routes = Router::new().route("/v1/unsaid", routing::get(|| async { "said" }));
    let routes = routes.route_layer(from_fn_with_state(door.clone(), authorise));
    let app = dressed(routes, frame).with_state(door);
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
async fn requests_over_the_rate_are_told_when_to_come_back() {
    let (mine, other) = (key(), key());
    let text = file("acme", &[(&mine, &Scope::ALL)], "requests_per_minute = 2")
        + &file("other", &[(&other, &Scope::ALL)], "");
    let (app, metrics, _folder) = Keyed::new(&text).app();
    for _ in 0..2 {
        assert_eq!(ask(&app, with_key(get("/v1/adapters"), &mine)).await.status, 200);
    }
    let answer = generate_as(&app, &mine, json!({"prompt": "a"})).await;
    assert_eq!((answer.error().0, answer.error().1.as_str()), (429, "quota_exceeded"));
    let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "one comes back every 30 s: {wait}");
    assert!(answer.error().3.contains("2 requests a minute"), "{}", answer.error().3);
    assert_eq!(
        generate_as(&app, &other, json!({"prompt": "a"})).await.status,
        200,
        "another tenant has its own"
    );
    assert_eq!(ask(&app, get("/health/ready")).await.status, 200);
    let text = metrics.render();
    for line in [
        r#"dept_tenant_requests_total{outcome="ok",tenant="acme"} 2"#,
        r#"dept_tenant_requests_total{outcome="quota_exceeded",tenant="acme"} 1"#,
        r#"dept_tenant_requests_total{outcome="ok",tenant="other"} 1"#,
        r#"dept_tenant_tokens_total{kind="prompt",tenant="other"} 2"#,
        r#"dept_tenant_tokens_total{kind="generated",tenant="other"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn tokens_are_taken_at_the_start_and_the_unused_come_back() {
    let mine = key();
    let limits = "tokens_per_minute = 60\ntoken_burst = 30";
    let (app, metrics, _folder) = Keyed::new(&file("acme", &[(&mine, &Scope::ALL)], limits)).app();
    // 2 of prompt and 20 of answer are taken, 3 are used: 30, 27, 24 are there before each.
    for _ in 0..3 {
        assert_eq!(generate_as(&app, &mine, json!({"prompt": "a"})).await.status, 200);
    }
    let answer = generate_as(&app, &mine, json!({"prompt": "a", "max_tokens": 26})).await;
    assert_eq!(answer.error().1, "quota_exceeded");
    let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=7).contains(&wait), "28 are asked for, 21 are there, one comes back a second: {wait}");
    // Soft prompts count, and a prompt counts once for all its choices: 2 + 2 + 3 x 9.
    let body = json!({"adapter": "sst2", "prompt": "a", "n": 3, "max_tokens": 9});
    let error = generate_as(&app, &mine, body).await.error();
    assert_eq!((error.0, error.2.as_str()), (400, Some("max_tokens")), "{}", error.3);
    assert!(error.3.contains("31 tokens") && error.3.contains("takes 30 at most"), "{}", error.3);
    assert!(metrics.render().contains(r#"dept_tenant_tokens_total{kind="generated",tenant="acme"} 3"#));
}

#[tokio::test]
async fn places_are_counted_until_the_last_byte() {
    let mine = key();
    let text = file("acme", &[(&mine, &Scope::ALL)], "concurrent_requests = 1\ntokens_per_minute = 44");
    let Keyed { stage, folder: _folder, .. } = Keyed::new(&text);
    let (app, inbox) = stage.quiet();
    let body = json!({"prompt": "a", "stream": true}).to_string();
    let held = app.clone().oneshot(with_key(post("/v1/generate", body), &mine)).await.unwrap();
    let answer = generate_as(&app, &mine, json!({"prompt": "a"})).await;
    assert_eq!((answer.error().1.as_str(), answer.header("retry-after")), ("quota_exceeded", Some("1")));
    assert!(answer.error().3.contains("1 requests under way"), "{}", answer.error().3);
    // It is abandoned with two tokens unread, which count.
    let Command::Submit(arrival) = inbox.recv().unwrap() else { unreachable!() };
    say(&arrival, &[(GOOD, "good"), (GOOD, "good")], "");
    drop(held);
    // 44 less 2 of prompt and 2 of answer.
    for (max_tokens, code) in [(39, "quota_exceeded"), (38, "")] {
        let body = json!({"prompt": "a", "max_tokens": max_tokens, "stream": true}).to_string();
        let response = app.clone().oneshot(with_key(post("/v1/generate", body), &mine)).await.unwrap();
        if code.is_empty() {
            assert_eq!(response.status(), 200);
        } else {
            assert_eq!(Answer::of(response).await.error().1, code);
        }
    }
}

#[tokio::test]
async fn what_the_engine_refuses_costs_nothing() {
    let mine = key();
    let text = file("acme", &[(&mine, &Scope::ALL)], "tokens_per_minute = 30");
    let Keyed { stage, folder: _folder, .. } = Keyed::new(&text);
    stage.service.engines[0].drain(std::time::Instant::now());
    let quotas = stage.gate.clone();
    let (app, _inbox) = stage.quiet();
    for _ in 0..5 {
        assert_eq!(generate_as(&app, &mine, json!({"prompt": "a"})).await.error().1, "draining");
    }
    let header = format!("Bearer {}", mine.reveal());
    let principal = quotas.admit([header.as_bytes()].into_iter()).unwrap();
    assert!(principal.tenant().quotas.begin(30).is_ok());
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

fn from_page(mut request: Request<Body>, origin: &str) -> Request<Body> {
    request.headers_mut().insert(header::HOST, "localhost".parse().unwrap());
    request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
    request
}

#[tokio::test]
async fn pages_of_listed_origins_may_read_answers_and_failures() {
    let mut stage = Stage::new();
    stage.options.origins = Origins::new(["https://app.example".to_owned()]);
    let app = stage.with_engine(|arrival| say(&arrival, &[], ""));
    let preflight = |origin: &str| {
        let request = Request::options("/v1/generate").header("access-control-request-method", "POST");
        let request = request.header("access-control-request-headers", "authorization,content-type");
        from_page(request.body(Body::empty()).unwrap(), origin)
    };
    let answer = ask(&app, preflight("https://app.example")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(answer.header("access-control-allow-headers").unwrap().contains("authorization"));
    for path in ["/v1/adapters", "/v1/adapters/nope"] {
        let answer = ask(&app, from_page(get(path), "https://app.example")).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"), "{path}");
        assert!(answer.header("access-control-expose-headers").unwrap().contains("x-request-id"));
    }
    for origin in ["https://evil.example", "http://app.example", "https://app.example.evil.example", "null"] {
        let answer = ask(&app, preflight(origin)).await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        let answer = ask(&app, from_page(get("/v1/adapters"), origin)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("access-control-allow-origin")),
            (403, None),
            "{origin}"
        );
    }
    let plain = ask(&super::kit::server(), preflight("https://app.example")).await;
    assert_eq!(plain.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn with_keys_any_host_is_answered() {
    let mine = key();
    let (app, ..) = Keyed::new(&file("acme", &[(&mine, &Scope::ALL)], "")).app();
    for (host, origin) in [("dept.example", "https://elsewhere.example"), ("10.0.0.1:8080", "null")] {
        let mut request = with_key(from_page(get("/v1/adapters"), origin), &mine);
        request.headers_mut().insert(header::HOST, host.parse().unwrap());
        assert_eq!(ask(&app, request).await.status, 200, "{host}");
    }
    let mut request = with_key(get("/v1/adapters"), &mine);
    request.headers_mut().append(header::HOST, "a".parse().unwrap());
    request.headers_mut().append(header::HOST, "b".parse().unwrap());
    let error = ask(&app, request).await.error();
    assert_eq!((error.0, error.2.as_str()), (400, Some("host")));
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
