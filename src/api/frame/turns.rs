//! Whose large bodies are in memory now.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::TenantId;

/// A few bodies at once, and of one tenant only some of those: slow clients of one don't keep the others waiting.
#[derive(Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    of_one: usize,
    /// By tenant: as many as the key file has ever named.
    tenants: DashMap<TenantId, Arc<Semaphore>>,
}

/// The right to have a body in memory, given back when it is dropped.
pub struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// `all` at once, of which one tenant has half at most.
    pub fn new(all: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_one: all.div_ceil(2), tenants: DashMap::new() }
    }

    /// Waits for a turn; who came first has it first.
    pub async fn take(&self, tenant: &TenantId) -> Turn {
        let semaphore = || Arc::new(Semaphore::new(self.of_one));
        let own = Arc::clone(&self.tenants.entry(tenant.clone()).or_insert_with(semaphore));
        // A semaphore that nobody closes has no other answer than a permit.
        let own = own.acquire_owned().await.ok();
        Turn { _own: own, _all: Arc::clone(&self.all).acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_tenant_leaves_turns_to_others() {
        let turns = Turns::new(4);
        let (one, other): (TenantId, TenantId) = ("one".parse().unwrap(), "other".parse().unwrap());
        let mut held = vec![turns.take(&one).await, turns.take(&one).await];
        let mut third = Box::pin(turns.take(&one));
        assert!((&mut third).now_or_never().is_none(), "half are the others'");
        held.push(turns.take(&other).now_or_never().unwrap());
        held.push(turns.take(&other).now_or_never().unwrap());
        let third_tenant: TenantId = "third".parse().unwrap();
        assert!(turns.take(&third_tenant).now_or_never().is_none(), "four are all");
        held.pop();
        assert!(turns.take(&third_tenant).now_or_never().is_some());
        held.remove(0);
        third.await;
    }
}
