//! One request over HTTP, and what became of it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::{Response, Url, header};
use serde::Deserialize;

use super::sse::SseParser;
use crate::config::choose_crypto;

/// What became of one request. Times are since the run's start.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// When it should have been sent; latencies count from here.
    pub due: Duration,
    /// When it was.
    pub sent: Duration,
    /// When its last byte of meaning came.
    pub ended: Duration,
    /// The answer, or a short name of what went wrong.
    pub outcome: Result<Answer, String>,
}

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Answer {
    /// When each token came; empty where the response was not streamed.
    pub tokens: Vec<Duration>,
    /// Token counts, as the server tells them.
    pub usage: Usage,
}

/// Token counts of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    pub prompt_tokens: usize,
    pub virtual_tokens: usize,
    pub completion_tokens: usize,
}

/// An event of a stream, or a whole body: which of them, the fields tell.
#[derive(Debug, Deserialize)]
struct Frame {
    token: Option<TokenFrame>,
    usage: Option<Usage>,
    error: Option<ErrorFrame>,
}

#[derive(Debug, Deserialize)]
struct TokenFrame {
    /// Null where only held-back text comes.
    id: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct ErrorFrame {
    code: String,
}

/// Sends requests to one server.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    server: Url,
}

impl Client {
    /// A client of `server` that shows `key` and gives a request up after `timeout`.
    ///
    /// # Errors
    /// When the key can't stand in a header or the HTTP client can't be built.
    pub(super) fn new(server: Url, key: Option<&str>, timeout: Duration) -> anyhow::Result<Self> {
        let mut headers = header::HeaderMap::new();
        if let Some(key) = key {
            let value = header::HeaderValue::try_from(format!("Bearer {key}"));
            headers.insert(header::AUTHORIZATION, value.context("--api-key is not a key")?);
        }
        // A proxy would be what is measured.
        choose_crypto();
        let client = reqwest::Client::builder().no_proxy().default_headers(headers);
        let http = client.timeout(timeout).build()?;
        Ok(Self { http, server })
    }

    /// Whether the server says that it is ready.
    ///
    /// # Errors
    /// When it does not.
    pub(super) async fn check_ready(&self) -> anyhow::Result<()> {
        let url = self.server.join("health/ready")?;
        let response = self.http.get(url).send().await;
        let response = response.with_context(|| {
            format!("no server answers at {}: start `dept serve`, or say --server", self.server)
        })?;
        if !response.status().is_success() {
            bail!("the server at {} is not ready: {}", self.server, response.status());
        }
        Ok(())
    }

    /// Sends one request and reads the answer to its end.
    pub(super) async fn ask(&self, body: String, epoch: Instant, due: Duration) -> Sample {
        let sent = epoch.elapsed();
        let mut ended = None;
        let outcome = self.exchange(body, epoch, &mut ended).await;
        Sample { due, sent, ended: ended.unwrap_or_else(|| epoch.elapsed()), outcome }
    }

    async fn exchange(
        &self,
        body: String,
        epoch: Instant,
        ended: &mut Option<Duration>,
    ) -> Result<Answer, String> {
        let url = self.server.join("v1/generate").map_err(|_| "bad server address".to_owned())?;
        let request = self.http.post(url).header(header::CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(|error| name(&error))?;
        let status = response.status();
        if !status.is_success() {
            let code = response.bytes().await.ok().and_then(|body| code(&body)).unwrap_or_default();
            return Err(format!("{} {code}", status.as_u16()).trim_end().to_owned());
        }
        let kind = response.headers().get(header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return read_stream(response, epoch, ended).await;
        }
        let body = response.bytes().await.map_err(|error| name(&error))?;
        let frame: Frame = serde_json::from_slice(&body).map_err(|_| MALFORMED.to_owned())?;
        Ok(Answer { tokens: Vec::new(), usage: frame.usage.ok_or(MALFORMED)? })
    }
}

const MALFORMED: &str = "malformed answer";

/// Reads a stream of tokens. `ended` is set at its `[DONE]`; the bytes behind it are read too, so that the connection
/// can be used again.
async fn read_stream(
    mut response: Response,
    epoch: Instant,
    ended: &mut Option<Duration>,
) -> Result<Answer, String> {
    let mut parser = SseParser::default();
    let mut answer = Answer::default();
    let mut usage = None;
    let mut failure = None;
    while let Some(chunk) = response.chunk().await.map_err(|error| name(&error))? {
        let now = epoch.elapsed();
        let pushed = parser.push(&chunk, |data| {
            if data == "[DONE]" {
                *ended = Some(now);
                return;
            }
            match serde_json::from_str(data) {
                Ok(Frame { error: Some(error), .. }) => failure = Some(format!("stream {}", error.code)),
                Ok(Frame { token: Some(TokenFrame { id: Some(_) }), .. }) => answer.tokens.push(now),
                Ok(Frame { token: None, usage: Some(whole), .. }) => usage = Some(whole),
                Ok(Frame { token: Some(_), .. }) => {}
                Ok(_) | Err(_) => failure = Some(MALFORMED.to_owned()),
            }
        });
        pushed.map_err(|_| MALFORMED.to_owned())?;
    }
    match (failure, usage) {
        (Some(failure), _) => Err(failure),
        (None, Some(usage)) if ended.is_some() => Ok(Answer { usage, ..answer }),
        _ => Err("broken stream".to_owned()),
    }
}

/// The error code in a failure's body.
fn code(body: &[u8]) -> Option<String> {
    let frame: Frame = serde_json::from_slice(body).ok()?;
    Some(frame.error?.code)
}

/// A transport's failure in two words at most.
fn name(error: &reqwest::Error) -> String {
    let name = match error {
        error if error.is_timeout() => "timeout",
        error if error.is_connect() => "no connection",
        _ => "broken connection",
    };
    name.to_owned()
}
