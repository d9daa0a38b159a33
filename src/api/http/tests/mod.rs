pub(in crate::api) mod adapters;
mod answers;
mod assets;
mod bad_input;
#[cfg(unix)]
mod by_path;
mod classify;
mod http2;
pub(in crate::api) mod keyed;
pub(in crate::api) mod kit;
mod openai;
mod pages;
mod quotas;
mod routes;
mod streaming;
mod tenants;
pub(in crate::api) mod traces;
mod troubles;
pub(in crate::api) mod wire;
