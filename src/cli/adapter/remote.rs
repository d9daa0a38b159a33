//! Adapters on a server: `dept adapter push`, `pull`, `list` and `rm`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::Deserialize;
use serde_json::Value;

use super::files;
use crate::{
    adapter::{
        LoadedAdapter,
        archive::{self, Limits},
    },
    cli::bench::server,
    config::choose_crypto,
    domain::{AdapterName, AdapterRef, Version},
};

/// A server that is slower than this to answer is taken for dead.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Adapters a page of the list.
const PAGE: &str = "1000";

/// Which server, and who asks.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ServerArgs {
    /// The server's HTTP address
    #[arg(long, env = "DEPT_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = server)]
    server: Url,

    /// The API key to show, where the server asks for one
    #[arg(long, env = "DEPT_API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<String>,
}

/// Where a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Namespace {
    /// The tenant's own
    Home,
    /// What all tenants see; needs the admin scope
    Shared,
}

/// The server's adapters.
pub(super) struct Client {
    http: reqwest::Client,
    server: Url,
}

/// An adapter as the server describes it; fields that are not shown are left out.
#[derive(Debug, Deserialize)]
struct Adapter {
    name: String,
    version: String,
    method: String,
    prompt_length: u64,
    rank: u64,
    max_length: Option<u64>,
    bytes: u64,
    residency: String,
    pinned: bool,
}

#[derive(Deserialize)]
struct Page {
    adapters: Vec<Value>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Failure {
    error: FailureBody,
}

#[derive(Deserialize)]
struct FailureBody {
    message: String,
    code: String,
}

impl Client {
    pub fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let mut headers = header::HeaderMap::new();
        if let Some(key) = &args.api_key {
            let mut value =
                header::HeaderValue::try_from(format!("Bearer {key}")).context("--api-key is not a key")?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        choose_crypto();
        let http = reqwest::Client::builder().default_headers(headers).timeout(TIMEOUT).build()?;
        Ok(Self { http, server: args.server.clone() })
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> anyhow::Result<RequestBuilder> {
        let mut url = self.server.join(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(self.http.request(method, url))
    }

    /// Sends a request; an answer that is no success is an error of the server's own words.
    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.with_context(|| {
            format!("no server answers at {}: start `dept serve`, or say --server", self.server)
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<Failure>(&body) {
            Ok(Failure { error }) => bail!("{} ({} {})", error.message, status.as_u16(), error.code),
            Err(_) => bail!(
                "the server at {} answers {status}, and not as dept does: is --server right?",
                self.server
            ),
        }
    }

    /// Uploads the adapter in `source`, checked here first.
    pub async fn push(&self, source: &Path, wanted: &PushArgs) -> anyhow::Result<String> {
        let name = wanted.name.clone().map_or_else(|| files::name_of(source), Ok)?;
        let files = files::read(source)?;
        LoadedAdapter::from_bytes(files.clone(), None)
            .with_context(|| format!("'{}' is refused", source.display()))?;
        let path = format!("v1/adapters/{name}");
        let mut request = self.request(Method::PUT, &path, wanted.namespace.query())?;
        if let Some(version) = &wanted.if_match {
            request = request.header(header::IF_MATCH, format!("\"{version}\""));
        }
        if wanted.new {
            request = request.header(header::IF_NONE_MATCH, "*");
        }
        let request = request.header(header::CONTENT_TYPE, "application/zip").body(archive::pack(&files));
        let response = self.send(request).await?;
        let what = if response.status() == StatusCode::CREATED { "created" } else { "updated" };
        let adapter: Adapter = response.json().await.context("the server's answer is not an adapter")?;
        Ok(format!("{what} {} {}\n", adapter.name, adapter.version))
    }

    /// Downloads an adapter into a new folder, and checks that it is what the server says it is.
    pub async fn pull(&self, wanted: &AdapterRef, folder: Option<&Path>) -> anyhow::Result<String> {
        let folder = folder.map_or_else(|| PathBuf::from(wanted.name.as_str()), Path::to_owned);
        ensure!(!folder.exists(), "'{}' is there already: say --to, or remove it", folder.display());
        let mut response =
            self.send(self.request(Method::GET, &format!("v1/adapters/{wanted}/content"), &[])?).await?;
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let limits = Limits::default();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.context("the download broke off")? {
            ensure!(
                (bytes.len() + chunk.len()) as u64 <= limits.bytes,
                "the download has more than {} bytes",
                limits.bytes
            );
            bytes.extend_from_slice(&chunk);
        }
        let files = archive::read(&bytes, &limits).context("what the server sent is refused")?;
        let loaded =
            LoadedAdapter::from_bytes(files.clone(), None).context("what the server sent is refused")?;
        let version = loaded.into_generation(wanted.name.clone()).version();
        if let Some(tag) = tag {
            ensure!(
                is_tag_of(&tag, &version),
                "the server says that this is version {tag}, but it is {version}"
            );
        }
        files::write(&files, &folder)?;
        Ok(format!("{} {version} in {}\n", wanted.name, folder.display()))
    }

    /// All adapters that the key may see.
    pub async fn list(&self, as_json: bool) -> anyhow::Result<String> {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let mut query = vec![("limit", PAGE)];
            query.extend(after.as_deref().map(|after| ("after", after)));
            let request = self.request(Method::GET, "v1/adapters", &query)?;
            let page: Page =
                self.send(request).await?.json().await.context("the server's answer is not a list")?;
            all.extend(page.adapters);
            match page.next {
                // A page that leads nowhere new would be asked for without end.
                Some(next) if after.as_ref().is_none_or(|after| *after < next) => after = Some(next),
                _ => break,
            }
        }
        if as_json {
            return Ok(serde_json::to_string_pretty(&all)? + "\n");
        }
        let adapters = all.into_iter().map(serde_json::from_value).collect::<Result<Vec<Adapter>, _>>();
        Ok(table(&adapters.context("the server's answer is not a list of adapters")?)?)
    }

    /// Deletes an adapter, or one version of it.
    pub async fn remove(&self, wanted: &AdapterRef, namespace: Namespace) -> anyhow::Result<String> {
        let version =
            wanted.version.as_ref().map(|version| format!("/versions/{version}")).unwrap_or_default();
        let path = format!("v1/adapters/{}{version}", wanted.name);
        self.send(self.request(Method::DELETE, &path, namespace.query())?).await?;
        Ok(format!("removed {wanted}\n"))
    }
}

/// How an adapter is pushed.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PushArgs {
    /// The name to give it [default: the folder's or archive's]
    #[arg(long)]
    pub name: Option<AdapterName>,

    /// Where it is put
    #[arg(long, value_enum, default_value = "home")]
    pub namespace: Namespace,

    /// Only if this is its current version on the server, whole (`sha256:…`)
    #[arg(long, value_name = "VERSION", conflicts_with = "new")]
    pub if_match: Option<String>,

    /// Only if the server has none of the name
    #[arg(long)]
    pub new: bool,
}

impl Namespace {
    fn query(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Home => &[],
            Self::Shared => &[("namespace", "shared")],
        }
    }
}

fn is_tag_of(tag: &str, version: &Version) -> bool {
    tag.trim_start_matches("W/").trim_matches('"') == version.to_string()
}

fn table(adapters: &[Adapter]) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let row = |cells: [&str; 9]| {
        let [name, version, method, m, r, s, bytes, residency, pinned] = cells;
        format!(
            "{name:<24} {version:<12} {method:<8} {m:>5} {r:>5} {s:>6} {bytes:>10} {residency:<9} {pinned}"
        )
    };
    let head = row(["NAME", "VERSION", "METHOD", "M", "R", "S", "BYTES", "RESIDENCY", "PINNED"]);
    writeln!(out, "{head}")?;
    for adapter in adapters {
        let [m, r, bytes] =
            [adapter.prompt_length, adapter.rank, adapter.bytes].map(|number| number.to_string());
        let s = adapter.max_length.map_or_else(|| "-".to_owned(), |s| s.to_string());
        let digits = adapter.version.trim_start_matches("sha256:");
        let version = digits.get(..12).unwrap_or(digits);
        let pinned = if adapter.pinned { "yes" } else { "" };
        let line =
            row([&adapter.name, version, &adapter.method, &m, &r, &s, &bytes, &adapter.residency, pinned]);
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(out)
}
