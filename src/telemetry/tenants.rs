//! What tenants use.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use prometheus::{IntCounterVec, Opts, Registry};

use super::instruments::{Instrument, registered};
use crate::domain::TenantId;

/// Tenants that get labels of their own. They come from the operator's file, which is the real bound.
pub const TENANT_LABELS: usize = 1000;

/// The label of a tenant: its name for the first `TENANT_LABELS` tenants, later ones share `other`.
#[derive(Debug, Default)]
struct TenantLabels(Mutex<HashSet<TenantId>>);

impl TenantLabels {
    fn of<'a>(&self, tenant: &'a TenantId) -> &'a str {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if given.contains(tenant) || given.len() < TENANT_LABELS && given.insert(tenant.clone()) {
            return tenant.as_str();
        }
        "other"
    }
}

/// Requests by tenant and by how they ended.
#[derive(Debug)]
pub struct TenantRequests {
    family: IntCounterVec,
    labels: TenantLabels,
}

impl TenantRequests {
    /// One request of `tenant` ended with `outcome`: `ok`, `cancelled` or an error's code.
    pub fn count(&self, tenant: &TenantId, outcome: &str) {
        self.family.with_label_values(&[self.labels.of(tenant), outcome]).inc();
    }
}

impl Instrument for TenantRequests {
    const KIND: &'static str = "counter";
    const LABELS: &'static [&'static str] = &["tenant", "outcome"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntCounterVec::new(Opts::new(name, help), Self::LABELS));
        Self { family, labels: TenantLabels::default() }
    }
}

/// What a token was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Of a prompt.
    Prompt,
    /// A row of a soft prompt.
    Virtual,
    /// Generated.
    Generated,
}

impl TokenKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Virtual => "virtual",
            Self::Generated => "generated",
        }
    }
}

/// Tokens by tenant and kind.
#[derive(Debug)]
pub struct TenantTokens {
    family: IntCounterVec,
    labels: TenantLabels,
}

impl TenantTokens {
    /// So many tokens of a kind were used by `tenant`.
    pub fn count(&self, tenant: &TenantId, kind: TokenKind, tokens: u64) {
        self.family.with_label_values(&[self.labels.of(tenant), kind.as_str()]).inc_by(tokens);
    }
}

impl Instrument for TenantTokens {
    const KIND: &'static str = "counter";
    const LABELS: &'static [&'static str] = &["tenant", "kind"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntCounterVec::new(Opts::new(name, help), Self::LABELS));
        Self { family, labels: TenantLabels::default() }
    }
}
