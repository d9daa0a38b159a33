//! What a tenant may have, and when it comes back.

use serde_json::json;
use tower::ServiceExt;

use super::{
    keyed::{Keyed, file, generate_as, key, with_key},
    kit::{Answer, GOOD, ask, get, post, say},
};
use crate::{engine::Command, tenancy::Scope};

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
