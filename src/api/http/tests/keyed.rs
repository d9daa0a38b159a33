//! A server with a key file.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use serde_json::Value;
use tempfile::TempDir;

use super::kit::{Answer, GOOD, Stage, ask, post, say};
use crate::{
    api::http::Hosts,
    telemetry::Metrics,
    tenancy::{ApiKey, Gate, Scope},
};

/// A stage with a key file.
pub struct Keyed {
    pub folder: TempDir,
    pub stage: Stage,
    pub metrics: Arc<Metrics>,
}

impl Keyed {
    pub fn new(file: &str) -> Self {
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
    pub fn app(self) -> (Router, Arc<Metrics>, TempDir) {
        let app = self.stage.with_engine(|arrival| say(&arrival, &[(GOOD, "good")], ""));
        (app, self.metrics, self.folder)
    }
}

/// One tenant with these keys, each with its scopes, and `more` lines.
pub fn file(tenant: &str, keys: &[(&ApiKey, &[Scope])], more: &str) -> String {
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

pub fn key() -> ApiKey {
    ApiKey::random().unwrap()
}

pub fn with_key(mut request: Request<Body>, key: &ApiKey) -> Request<Body> {
    let value = format!("Bearer {}", key.reveal());
    request.headers_mut().insert(header::AUTHORIZATION, value.parse().unwrap());
    request
}

pub async fn generate_as(app: &Router, key: &ApiKey, body: Value) -> Answer {
    ask(app, with_key(post("/v1/generate", body.to_string()), key)).await
}
