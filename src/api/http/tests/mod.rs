#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod answers;
mod bad_input;
mod kit;
mod routes;
mod streaming;
mod troubles;
