//! Integration tests: the library and the binary from outside.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod binary;
mod causal;
mod degraded;
mod dense;
mod embedded;
mod exactness;
mod kept;
mod logs;
mod misconfigured;
mod mixes;
mod real_models;
mod rolling;
mod short_floats;
mod store;
mod structured;
mod support;
mod swaps;
mod tenants;
mod tls;
mod traces;
mod training;
