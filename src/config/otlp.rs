//! Where traces go, and what they say of who sends them.

use std::{env, fmt, str::FromStr};

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

/// Where a collector takes traces, behind its own address.
const TRACES: &str = "v1/traces";

/// A collector's address: `--otlp-endpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Where traces are posted to.
    pub fn traces(&self) -> Url {
        self.0.clone()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let advice = "write the collector's address for OTLP over HTTP, like http://collector:4318";
        let mut url: Url = text.parse().map_err(|_| advice)?;
        if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
            return Err(advice.into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("write no password into the address, which is logged: give it as a header".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(advice.into());
        }
        let path = url.path().trim_end_matches('/').to_owned();
        if !path.ends_with(TRACES) {
            url.set_path(&format!("{path}/{TRACES}"));
        }
        Ok(Self(url))
    }
}

/// What a collector wants to hear, a key perhaps: `--otlp-headers`. Its values are in no log.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(HeaderMap);

impl Headers {
    /// The headers.
    pub fn map(&self) -> &HeaderMap {
        &self.0
    }
}

/// `KEY=VALUE,KEY=VALUE`, as `OTEL_EXPORTER_OTLP_HEADERS` is written.
impl FromStr for Headers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (at, (name, value)) in pairs(text).enumerate() {
            // What is wrong may be a key: it is not repeated.
            let wrong =
                || format!("header {} is none: write KEY=VALUE, with %2C for a comma in a value", at + 1);
            let name: HeaderName = name.parse().map_err(|_| wrong())?;
            let value = value.ok_or_else(wrong)?;
            let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(Self(headers))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// `a=1,b=2` as names and values, which are percent-decoded; no value where there is none, or none that is text.
fn pairs(text: &str) -> impl Iterator<Item = (&str, Option<String>)> {
    text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((name, value)) => (name.trim_end(), decoded(value.trim_start())),
        None => (pair, None),
    })
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                bytes.push(16 * high + low);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A share from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a number from 0 to 1".into())
}

/// Where traces go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpConfig {
    /// The collector.
    pub endpoint: Endpoint,
    /// What it wants to hear.
    pub headers: Headers,
    /// The share of the requests to trace, where nobody else has decided.
    pub sample: f64,
}

/// What traces say of who sends them: name and value.
pub type Attributes = Vec<(String, String)>;

/// What `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say of this process, which is what operators of Kubernetes set.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub fn resource() -> Attributes {
    let read = |name| env::var(name).unwrap_or_default();
    resource_of(&read("OTEL_SERVICE_NAME"), &read("OTEL_RESOURCE_ATTRIBUTES"))
}

pub(super) fn resource_of(name: &str, attributes: &str) -> Attributes {
    let mut said: Attributes =
        pairs(attributes).filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    let mut put = |key: &str, value: &str, wins: bool| match said.iter_mut().find(|(known, _)| known == key) {
        Some(known) if wins => value.clone_into(&mut known.1),
        Some(_) => {}
        None => said.push((key.to_owned(), value.to_owned())),
    };
    put("service.name", if name.is_empty() { "dept" } else { name }, !name.is_empty());
    put("service.version", env!("CARGO_PKG_VERSION"), false);
    put("service.instance.id", &uuid::Uuid::now_v7().to_string(), false);
    said
}
