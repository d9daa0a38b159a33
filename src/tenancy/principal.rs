use std::{num::NonZeroU32, sync::Arc};

use super::{AllowList, Denied, QuotaError, Quotas, Scope, Scopes, quota::Limits};
use crate::domain::{AdapterName, TenantId};

/// A priority above what a tenant may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("priority is {found}: this tenant may use up to {most}")]
pub struct PriorityError {
    /// What was asked for.
    pub found: i32,
    /// The most it may use.
    pub most: i32,
}

/// An owner of requests and adapters, and what it may have.
#[derive(Debug)]
pub struct Tenant {
    /// Its name, which is also its home namespace.
    pub id: TenantId,
    /// Its share of a crowded server, beside the others' weights.
    pub weight: NonZeroU32,
    /// Greatest `priority` of its requests.
    pub max_priority: i32,
    /// Most adapters and aliases in its home.
    pub max_adapters: usize,
    /// The adapters that it may use.
    pub adapters: AllowList,
    /// What it has used of its rates.
    pub quotas: Arc<Quotas>,
}

/// Who makes a request, and with which key. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal {
    tenant: Arc<Tenant>,
    key: Arc<str>,
    scopes: Scopes,
}

impl Principal {
    pub(super) fn new(tenant: Arc<Tenant>, key: Arc<str>, scopes: Scopes) -> Self {
        Self { tenant, key, scopes }
    }

    /// The only one of a server without keys: it may do everything, with priorities up to `max_priority`.
    pub fn anonymous(max_priority: i32) -> Self {
        let tenant = Tenant {
            id: TenantId::default_tenant(),
            weight: NonZeroU32::MIN,
            max_priority,
            max_adapters: usize::MAX,
            adapters: AllowList::Every,
            quotas: Arc::new(Quotas::new(Limits::default())),
        };
        Self::new(Arc::new(tenant), "anonymous".into(), Scopes::EVERY)
    }

    /// The tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The name of the key, for logs.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether the key has `scope`.
    ///
    /// # Errors
    /// When it has not.
    pub fn require(&self, scope: Scope) -> Result<(), Denied> {
        if self.scopes.contains(scope) {
            Ok(())
        } else {
            Err(Denied::Scope { key: self.key.to_string(), scope })
        }
    }

    /// Whether the tenant may use, and so see, an adapter of this name.
    pub fn may_use(&self, name: &AdapterName) -> bool {
        self.tenant.adapters.contains(name)
    }

    /// Whether the tenant, which has `count` adapters and aliases, may have one more.
    ///
    /// # Errors
    /// When it has as many as it may.
    pub fn check_count(&self, count: usize) -> Result<(), QuotaError> {
        let limit = self.tenant.max_adapters;
        if count < limit { Ok(()) } else { Err(QuotaError::Adapters { limit }) }
    }

    /// Whether a request of this tenant may have `priority`.
    ///
    /// # Errors
    /// When it is too great. A lesser one only harms the tenant's own request.
    pub fn check_priority(&self, priority: i32) -> Result<(), PriorityError> {
        let most = self.tenant.max_priority;
        if priority <= most { Ok(()) } else { Err(PriorityError { found: priority, most }) }
    }
}
