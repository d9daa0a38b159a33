//! Web pages of other origins, and other hosts.

use axum::{
    body::Body,
    http::{Request, header},
};

use super::{
    keyed::{Keyed, file, key, with_key},
    kit::{Stage, ask, get, say, server},
};
use crate::{api::http::Origins, tenancy::Scope};

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
    let plain = ask(&server(), preflight("https://app.example")).await;
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
