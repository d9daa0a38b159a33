//! Who may use which route.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{Method, header, request::Parts},
    middleware::Next,
    response::Response,
};

use super::{Door, account::Account};
use crate::{
    api::ApiError,
    tenancy::{Principal, Scope},
};

/// What a route asks of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: no key is looked at.
    Free,
    /// A key with this scope.
    Needs(Scope),
}

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

/// Lets a request in, with its [`Principal`], or refuses it. A route that nothing is said of is the admin's alone.
pub(super) async fn authorise(
    State(door): State<Door>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let path = request.extensions().get::<MatchedPath>();
    let access = path.and_then(|path| declared(request.method(), path.as_str()));
    if let Needs(scope) = access.unwrap_or(Needs(Scope::Admin)) {
        let sent = request.headers().get_all(header::AUTHORIZATION).iter().map(|value| value.as_bytes());
        let principal = door.gate.admit(sent)?;
        if let Some(account) = request.extensions().get::<Arc<Account>>() {
            account.charge(&principal.tenant().id);
        }
        principal.require(scope)?;
        principal.tenant().quotas.request()?;
        request.extensions_mut().insert(principal);
    }
    Ok(next.run(request).await)
}

/// Who was let in.
impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "a route that asks for nobody wants to know who asks");
            ApiError::internal()
        })
    }
}
