//! What every route of the HTTP address asks of a client.

use axum::http::Method;

pub(super) use crate::api::frame::access::Access;
use crate::tenancy::Scope;

use Access::{Free, Needs};

/// Every route of the HTTP address. What stands here under `/v1/` also stands in the API's description.
const ROUTES: &[(Method, &str, Access)] = &[
    (Method::POST, "/v1/generate", Needs(Scope::Generate)),
    (Method::POST, "/v1/classify", Needs(Scope::Generate)),
    (Method::POST, "/v1/tokenize", Needs(Scope::Generate)),
    (Method::POST, "/v1/detokenize", Needs(Scope::Generate)),
    (Method::POST, "/v1/completions", Needs(Scope::Generate)),
    (Method::POST, "/v1/chat/completions", Needs(Scope::Generate)),
    (Method::GET, "/v1/models", Needs(Scope::AdaptersRead)),
    (Method::GET, "/v1/models/{model}", Needs(Scope::AdaptersRead)),
    (Method::GET, "/v1/adapters", Needs(Scope::AdaptersRead)),
    (Method::GET, "/v1/adapters/{name}", Needs(Scope::AdaptersRead)),
    (Method::PUT, "/v1/adapters/{name}", Needs(Scope::AdaptersWrite)),
    (Method::PATCH, "/v1/adapters/{name}", Needs(Scope::AdaptersWrite)),
    (Method::DELETE, "/v1/adapters/{name}", Needs(Scope::AdaptersWrite)),
    (Method::GET, "/v1/adapters/{name}/versions", Needs(Scope::AdaptersRead)),
    (Method::DELETE, "/v1/adapters/{name}/versions/{version}", Needs(Scope::AdaptersWrite)),
    (Method::GET, "/v1/adapters/{name}/content", Needs(Scope::AdaptersRead)),
    (Method::PUT, "/v1/aliases/{alias}", Needs(Scope::AdaptersWrite)),
    (Method::DELETE, "/v1/aliases/{alias}", Needs(Scope::AdaptersWrite)),
    (Method::POST, "/v1/load_lora_adapter", Needs(Scope::AdaptersWrite)),
    (Method::POST, "/v1/unload_lora_adapter", Needs(Scope::AdaptersWrite)),
    (Method::GET, "/openapi.json", Free),
    // Files that are the same for everyone; what they show, they ask for with the visitor's key.
    (Method::GET, "/", Free),
    (Method::GET, "/docs", Free),
    (Method::GET, "/page/{file}", Free),
    (Method::GET, "/health/live", Free),
    (Method::GET, "/health/ready", Free),
    // The tenants' figures are nobody's but the operator's.
    (Method::GET, "/metrics", Needs(Scope::Admin)),
];

/// What a route is said to ask; `None` where nothing is said.
pub(super) fn declared(method: &Method, path: &str) -> Option<Access> {
    // What answers GET answers HEAD.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let route = ROUTES.iter().find(|(of, route, _)| of == method && *route == path);
    route.map(|&(_, _, access)| access)
}
