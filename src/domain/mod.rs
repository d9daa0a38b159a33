//! The words of the product: names, requests, tokens, outcomes. No I/O and no tensors.

mod name;

pub use name::{AdapterName, AdapterRef, NameError, TenantId, Version, VersionPrefix};

#[cfg(test)]
mod tests;
