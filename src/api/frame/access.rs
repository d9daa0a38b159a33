//! Who may use which route.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{Method, header, request::Parts},
    middleware::Next,
    response::Response,
};

use super::account::Account;
use crate::{
    api::ApiError,
    tenancy::{Gate, Principal, Scope},
};

/// What a route asks of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Access {
    /// Nothing: no key is looked at.
    Free,
    /// A key with this scope.
    Needs(Scope),
}

/// The keys, and what each route of a door asks; `None` where nothing is said of it.
#[derive(Clone)]
pub(in crate::api) struct Doorkeeper {
    pub gate: Arc<Gate>,
    pub declared: fn(&Method, &str) -> Option<Access>,
}

/// Lets a request in, with its [`Principal`], or refuses it. A route that nothing is said of is the admin's alone.
pub(in crate::api) async fn authorise(
    State(keeper): State<Doorkeeper>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let path = request.extensions().get::<MatchedPath>();
    let access = path.and_then(|path| (keeper.declared)(request.method(), path.as_str()));
    if let Access::Needs(scope) = access.unwrap_or(Access::Needs(Scope::Admin)) {
        let sent = request.headers().get_all(header::AUTHORIZATION).iter().map(|value| value.as_bytes());
        let principal = keeper.gate.admit(sent)?;
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
