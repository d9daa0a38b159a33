use anyhow::{Context, bail};
use reqwest::{Url, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{adapter::Card, config::choose_crypto};

/// A server, and an adapter that it holds.
pub(in crate::cli) struct There {
    http: reqwest::Client,
    server: Url,
    adapter: Option<String>,
}

#[derive(Deserialize)]
struct Generated {
    text: String,
}

#[derive(Deserialize)]
struct Classified {
    scores: Vec<Score>,
}

#[derive(Deserialize)]
struct Score {
    logprob: f64,
}

#[derive(Deserialize)]
struct Results<T> {
    results: Vec<T>,
}

impl There {
    pub fn new(server: Url, key: Option<&str>, adapter: Option<String>) -> anyhow::Result<Self> {
        choose_crypto();
        let mut headers = header::HeaderMap::new();
        if let Some(key) = key {
            let value = header::HeaderValue::try_from(format!("Bearer {key}"));
            headers.insert(header::AUTHORIZATION, value.context("--api-key is not a key")?);
        }
        let http = reqwest::Client::builder().default_headers(headers).build()?;
        Ok(Self { http, server, adapter })
    }

    /// The adapter's card; empty for the bare model.
    pub async fn card(&self) -> anyhow::Result<Card> {
        let Some(adapter) = &self.adapter else { return Ok(Card::default()) };
        let url =
            self.server.join(&format!("v1/adapters/{}", adapter.split('@').next().unwrap_or_default()))?;
        let object: Value = self.send(self.http.get(url)).await?;
        let card = object.get("card").filter(|card| !card.is_null()).cloned();
        Ok(card
            .map(serde_json::from_value)
            .transpose()
            .context("the server's card can't be read")?
            .unwrap_or_default())
    }

    pub async fn generate(&self, prompts: Vec<String>, max_tokens: u32) -> anyhow::Result<Vec<String>> {
        let body = json!({ "adapter": self.adapter, "prompt": prompts, "max_tokens": max_tokens });
        let url = self.server.join("v1/generate")?;
        let found: Results<Generated> = self.send(self.http.post(url).json(&body)).await?;
        Ok(found.results.into_iter().map(|one| one.text).collect())
    }

    pub async fn classify(&self, prompts: Vec<String>, labels: &[String]) -> anyhow::Result<Vec<Vec<f64>>> {
        let mut all = Vec::with_capacity(prompts.len());
        let url = self.server.join("v1/classify")?;
        // As many sequences as the smallest usual queue takes.
        for prompts in prompts.chunks((64 / labels.len().max(1)).max(1)) {
            let body = json!({ "adapter": self.adapter, "prompts": prompts, "labels": labels });
            let found: Results<Classified> = self.send(self.http.post(url.clone()).json(&body)).await?;
            all.extend(
                found.results.into_iter().map(|one| one.scores.iter().map(|score| score.logprob).collect()),
            );
        }
        Ok(all)
    }

    /// Sends a request; a refusal is told in the server's words.
    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> anyhow::Result<T> {
        let response = request.send().await.context("the server can't be reached")?;
        let status = response.status();
        let body = response.bytes().await.context("the server's answer broke off")?;
        if !status.is_success() {
            let words: Value = serde_json::from_slice(&body).unwrap_or_default();
            bail!(
                "the server says {status}: {}",
                words["error"]["message"].as_str().unwrap_or("no more than that")
            );
        }
        serde_json::from_slice(&body).context("the server's answer can't be read; is it a dept server?")
    }
}
