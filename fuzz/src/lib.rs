//! The parsers of the server, taken by their source files: they need nothing else of it.
//!
//! A file that these modules come to use must be named here too; CI's build of this crate tells.

pub mod adapter;
#[path = "../../src/domain/mod.rs"]
pub mod domain;
pub mod targets;
