//! The front doors: one set of use cases behind HTTP and gRPC.
//!
//! [`Service`] is the use cases, free of any wire; [`http`] turns JSON into its requests and its results into JSON, [`grpc`] does
//! the same with protobuf, and both stand in one frame of ids, accounts, keys and limits.
//! [`ErrorCode`] is the only place that knows what a failure looks like on a wire.

mod adapters;
mod bounds;
mod classify;
mod error;
mod frame;
mod gather;
mod grammar;
pub mod grpc;
pub mod http;
mod meter;
mod prompts;
mod readiness;
mod service;
mod texts;
mod trace;
mod upload;

pub use adapters::Site;
pub use classify::{Classified, Classifying, LabelScore, MAX_LABELS};
pub use error::{ApiError, ErrorCode, ErrorRow};
pub use gather::{Choice, Events, Gathering, Piece, Place, collect, merge};
pub use readiness::{Readiness, State};
pub use service::{Accepted, DEFAULT_MAX_TOKENS, Service, Tokens};
pub use trace::Trace;

#[cfg(test)]
mod tests;
