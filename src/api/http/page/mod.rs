//! What a browser is shown: the page to try the server (`/`) and the API's documentation (`/docs`). A few files that
//! are part of the binary and ask nothing of any other host.

use std::{io::Write, sync::LazyLock};

use axum::{
    Router,
    body::Bytes,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

use crate::api::{ApiError, ErrorCode};

/// The pages run their own scripts and talk to their own server, nothing else: an adapter's card can't make them do
/// more, even if a script were careless with its text.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// A file of the pages.
pub(super) struct Asset {
    pub name: &'static str,
    kind: &'static str,
    pub plain: Bytes,
    packed: Bytes,
    /// Weak, since it stands for both forms.
    tag: String,
}

/// Name, media type and content of each file.
macro_rules! files {
    ($($name:literal: $kind:literal,)+) => {
        [$(($name, $kind, include_bytes!(concat!("assets/", $name)).as_slice())),+]
    };
}

pub(super) static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let files = files! {
        "index.html": "text/html; charset=utf-8",
        "docs.html": "text/html; charset=utf-8",
        "style.css": "text/css; charset=utf-8",
        "icon.svg": "image/svg+xml",
        "app.js": "text/javascript; charset=utf-8",
        "dom.js": "text/javascript; charset=utf-8",
        "server.js": "text/javascript; charset=utf-8",
        "shelf.js": "text/javascript; charset=utf-8",
        "about.js": "text/javascript; charset=utf-8",
        "ask.js": "text/javascript; charset=utf-8",
        "answer.js": "text/javascript; charset=utf-8",
        "tokens.js": "text/javascript; charset=utf-8",
        "upload.js": "text/javascript; charset=utf-8",
        "curl.js": "text/javascript; charset=utf-8",
        "docs.js": "text/javascript; charset=utf-8",
        "schema.js": "text/javascript; charset=utf-8",
        "prose.js": "text/javascript; charset=utf-8",
    };
    files.into_iter().map(|(name, kind, plain)| Asset::new(name, kind, plain)).collect()
});

impl Asset {
    fn new(name: &'static str, kind: &'static str, plain: &'static [u8]) -> Self {
        let digest: String = Sha256::digest(plain).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        let packed = packer.write_all(plain).and_then(|()| packer.finish());
        let packed = packed.expect("writing to memory does not fail");
        Self {
            name,
            kind,
            plain: Bytes::from_static(plain),
            packed: packed.into(),
            tag: format!("W/\"{digest}\""),
        }
    }

    /// The file, or that it is still the one that the client has.
    fn answer(&self, asked: &HeaderMap) -> Response {
        let mut response = match (self.is_known(asked), takes_gzip(asked)) {
            (true, _) => StatusCode::NOT_MODIFIED.into_response(),
            (false, true) => ([(header::CONTENT_ENCODING, "gzip")], self.packed.clone()).into_response(),
            (false, false) => self.plain.clone().into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, HeaderValue::try_from(&self.tag).expect("hexadecimal digits"));
        let fixed = [
            (header::CONTENT_TYPE, self.kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            // Asked for anew each time, answered by a 304: after an update no old script meets a new page.
            (header::CACHE_CONTROL, "no-cache"),
            (header::VARY, "accept-encoding"),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn is_known(&self, asked: &HeaderMap) -> bool {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        known
            .flat_map(|list| list.split(','))
            .any(|tag| tag.trim() == "*" || opaque(tag) == opaque(&self.tag))
    }
}

/// Whether a client says that it reads gzip.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let lists = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        named && weight != Some(0.0)
    })
}

/// The pages' routes.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| named("index.html", &headers)))
        .route("/docs", get(async |headers: HeaderMap| named("docs.html", &headers)))
        .route(
            "/page/{file}",
            get(async |Path(file): Path<String>, headers: HeaderMap| named(&file, &headers)),
        )
}

fn named(file: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let asset = ASSETS.iter().find(|asset| asset.name == file);
    let none = || ApiError::new(ErrorCode::NotFound, format!("there is no /page/{file}: the page is at /"));
    asset.map(|asset| asset.answer(headers)).ok_or_else(none)
}
