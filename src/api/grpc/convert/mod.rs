//! Between protobuf messages and the domain: what is illegal ends here.

mod adapter;
mod request;
mod response;

pub(super) use adapter::{adapter, precondition, site};
pub(super) use request::{classify_request, generate_request, tokenize_request, unknown};
pub(super) use response::{Writer, classify_response};
