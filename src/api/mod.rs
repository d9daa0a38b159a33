//! The front doors: one set of use cases behind HTTP and gRPC.

mod error;
mod readiness;

pub use error::{ApiError, ErrorCode, ErrorRow};
pub use readiness::{Readiness, State};

#[cfg(test)]
mod tests;
