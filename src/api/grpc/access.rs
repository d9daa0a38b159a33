//! What every rpc asks of a client.

use axum::http::Method;

use crate::{
    api::frame::access::Access::{self, Free, Needs},
    tenancy::Scope,
};

/// The rpcs of `InferenceService`.
pub(super) const INFERENCE: [&str; 4] = [
    "/dept.v1.InferenceService/Generate",
    "/dept.v1.InferenceService/GenerateStream",
    "/dept.v1.InferenceService/Classify",
    "/dept.v1.InferenceService/Tokenize",
];

/// The rpcs of `AdapterService` with small messages.
pub(super) const ADAPTERS: [&str; 3] = [
    "/dept.v1.AdapterService/GetAdapter",
    "/dept.v1.AdapterService/ListAdapters",
    "/dept.v1.AdapterService/DeleteAdapter",
];

/// The one with large ones.
pub(super) const UPLOAD: &str = "/dept.v1.AdapterService/UploadAdapter";

/// What an rpc is said to ask; `None` where nothing is said.
pub(super) fn declared(_: &Method, path: &str) -> Option<Access> {
    match path {
        path if INFERENCE.contains(&path) => Some(Needs(Scope::Generate)),
        "/dept.v1.AdapterService/GetAdapter" | "/dept.v1.AdapterService/ListAdapters" => {
            Some(Needs(Scope::AdaptersRead))
        }
        "/dept.v1.AdapterService/DeleteAdapter" | UPLOAD => Some(Needs(Scope::AdaptersWrite)),
        // As /health and /openapi.json are.
        path if path.starts_with("/grpc.health.v1.") || path.starts_with("/grpc.reflection.") => Some(Free),
        _ => None,
    }
}
