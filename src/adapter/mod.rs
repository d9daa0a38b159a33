//! Adapters: what they are on disk, in memory and by name.

/// A hold on one immutable adapter generation; it stays whole while any lease on it lives.
#[derive(Debug, Clone)]
pub struct AdapterLease;
