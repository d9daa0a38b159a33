//! Counts what a request takes, for its tenant's quota and for the metrics, however it ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, Stream, StreamExt};

use super::{Events, Place};
use crate::{
    domain::{TenantId, TokenEvent},
    engine::Submission,
    telemetry::{Metrics, TokenKind},
    tenancy::{Principal, Spending},
};

/// What the prompts of a request take; a prompt counts once, however many choices it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct PromptUsage {
    /// Tokens.
    pub prompt: u64,
    /// Soft-prompt rows.
    pub virtual_: u64,
}

impl PromptUsage {
    /// Of `sequences`, each of a prompt of its own; tokens that are given to be scored count with the prompts.
    pub fn of(sequences: &[Submission]) -> Self {
        let tokens = sequences.iter().map(|one| (one.tokens.len() + one.given.len()) as u64);
        let rows = |one: &Submission| one.adapter.as_ref().map_or(0, |held| held.weights().prompt_length());
        Self { prompt: tokens.sum(), virtual_: sequences.iter().map(|one| rows(one) as u64).sum() }
    }

    /// All of it.
    pub fn total(self) -> u64 {
        self.prompt + self.virtual_
    }
}

/// The account of a request that runs.
pub(super) struct Meter {
    metrics: Arc<Metrics>,
    tenant: TenantId,
    spending: Spending,
}

impl Meter {
    /// A request that has been queued: its prompts are spent.
    pub fn new(
        metrics: Arc<Metrics>,
        principal: &Principal,
        mut spending: Spending,
        usage: PromptUsage,
    ) -> Self {
        spending.spend(usage.total());
        let tenant = principal.tenant().id.clone();
        metrics.tenant_tokens.count(&tenant, TokenKind::Prompt, usage.prompt);
        metrics.tenant_tokens.count(&tenant, TokenKind::Virtual, usage.virtual_);
        Self { metrics, tenant, spending }
    }

    /// The events, counted as they pass.
    pub fn over(self, events: Events) -> Events {
        Metered { events, meter: self, generated: 0 }.boxed()
    }
}

struct Metered {
    events: Events,
    meter: Meter,
    generated: u64,
}

impl Stream for Metered {
    type Item = (Place, TokenEvent);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.events.poll_next_unpin(context);
        if let Poll::Ready(Some((_, TokenEvent::Token(_)))) = next {
            self.generated += 1;
        }
        next
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        // What was generated and never looked at was generated all the same.
        while let Some(Some((_, event))) = self.events.next().now_or_never() {
            self.generated += u64::from(matches!(event, TokenEvent::Token(_)));
        }
        let Meter { metrics, tenant, spending } = &mut self.meter;
        spending.spend(self.generated);
        metrics.tenant_tokens.count(tenant, TokenKind::Generated, self.generated);
    }
}
