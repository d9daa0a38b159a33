//! The files that a browser is shown.

use std::io::Read;

use axum::http::header;
use flate2::read::GzDecoder;

use super::{
    keyed::{Keyed, file, key},
    kit::{Answer, ask, get, server},
};
use crate::{
    api::http::page::{ASSETS, POLICY},
    tenancy::Scope,
};

/// A file with these headers sent along.
async fn fetch(path: &str, headers: &[(header::HeaderName, &str)]) -> Answer {
    let mut request = get(path);
    for (name, value) in headers {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    ask(&server(), request).await
}

#[tokio::test]
async fn the_pages_come_with_their_policy_and_are_not_sent_twice() {
    for (path, kind, start) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/docs", "text/html; charset=utf-8", "<!doctype html>"),
        ("/page/app.js", "text/javascript; charset=utf-8", "import"),
        ("/page/style.css", "text/css; charset=utf-8", ":root"),
    ] {
        let whole = fetch(path, &[]).await;
        assert_eq!((whole.status.as_u16(), whole.header("content-type")), (200, Some(kind)), "{path}");
        assert!(whole.text().starts_with(start), "{path}");
        assert_eq!(whole.header("content-security-policy"), Some(POLICY));
        assert_eq!(whole.header("content-encoding"), None);
        let tag = whole.header("etag").unwrap();
        for known in [tag, tag.trim_start_matches("W/"), &format!("\"other\", {tag}"), "*"] {
            let again = fetch(path, &[(header::IF_NONE_MATCH, known)]).await;
            assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path} {known}");
            assert_eq!(again.header("etag"), Some(tag));
        }
        assert_eq!(fetch(path, &[(header::IF_NONE_MATCH, "\"other\"")]).await.status, 200);
    }
}

#[tokio::test]
async fn whoever_reads_gzip_gets_it() {
    let plain = fetch("/page/style.css", &[]).await;
    for (accepted, packed) in [
        ("gzip", true),
        ("br, GZIP;q=0.5", true),
        ("identity", false),
        ("gzip;q=0", false),
        ("gzip; q=0.0, br", false),
        ("xgzip", false),
    ] {
        let answer = fetch("/page/style.css", &[(header::ACCEPT_ENCODING, accepted)]).await;
        assert_eq!(answer.header("content-encoding"), packed.then_some("gzip"), "{accepted}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        let mut bytes = answer.body.to_vec();
        if packed {
            bytes.clear();
            GzDecoder::new(&answer.body[..]).read_to_end(&mut bytes).unwrap();
        }
        assert_eq!(bytes, plain.body, "{accepted}");
    }
}

#[tokio::test]
async fn the_pages_are_for_everyone_and_show_nothing_by_themselves() {
    let (app, ..) = Keyed::new(&file("acme", &[(&key(), &Scope::ALL)], "")).app();
    for path in ["/", "/docs", "/page/app.js", "/page/icon.svg"] {
        assert_eq!(ask(&app, get(path)).await.status, 200, "{path}");
    }
    assert_eq!(ask(&app, get("/v1/adapters")).await.status, 401);
    let error = ask(&app, get("/page/nothing.js")).await.error();
    assert_eq!((error.0, error.1.as_str()), (404, "not_found"));
    let mut elsewhere = get("/");
    elsewhere.headers_mut().insert(header::HOST, "evil.example".parse().unwrap());
    assert_eq!(ask(&server(), elsewhere).await.status, 403, "the guard of anonymous servers holds here too");
}

#[test]
fn the_pages_are_small_and_name_no_other_host() {
    let sizes = ASSETS.iter().map(|asset| asset.plain.len());
    assert!(sizes.sum::<usize>() < 100_000);
    for asset in ASSETS.iter() {
        let text = std::str::from_utf8(&asset.plain).unwrap();
        for (at, _) in text.match_indices("://") {
            assert!(text[at..].starts_with("://www.w3.org/2000/svg"), "{} names a host", asset.name);
        }
    }
}

#[test]
fn every_file_that_a_page_names_is_there() {
    for asset in ASSETS.iter() {
        let text = std::str::from_utf8(&asset.plain).unwrap();
        let named = text.split(['"', '\'']).filter_map(|part| {
            part.strip_prefix("page/").or_else(|| part.strip_prefix("./").filter(|name| !name.is_empty()))
        });
        for name in named {
            assert!(ASSETS.iter().any(|other| other.name == name), "{} names {name}", asset.name);
        }
    }
}
