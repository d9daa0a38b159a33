use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    num::NonZeroU32,
};

use super::SequenceId;
use crate::domain::{AdapterName, TenantId};

/// Of so many admissions of a tenant one goes to its oldest request, whatever its priority and adapter.
pub(super) const BY_AGE: u64 = 4;

/// What a token counts at weight 1; a larger weight makes it count less.
pub(super) const TOKEN: u64 = 1 << 16;

/// Sequences that wait, in the order of service.
///
/// Between tenants a virtual token counter decides (Sheng et al., *Fairness in Serving Large Language Models*, OSDI 2024):
/// who was served the fewest tokens for its weight goes first. Inside a tenant the larger priority goes first, then the
/// adapter that was served the fewest tokens, then who came first; but every fourth admission is the oldest request's, so
/// that each older request delays one by four admissions at most and nobody starves. A tenant or adapter that was away
/// starts level with whoever was served last: rest is not saved up.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    tenants: Vec<Tenant>,
    numbers: HashMap<TenantId, usize>,
    /// Tenants with someone waiting, by what they had been served when they were put here: by now perhaps more.
    turns: BTreeSet<(u64, usize)>,
    /// The counter of the tenant that was served last.
    level: u64,
    waiting: usize,
}

/// A live sequence's place in the queue's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    id: SequenceId,
    tenant: usize,
    adapter: usize,
    priority: i32,
    weight: NonZeroU32,
}

#[derive(Debug, Default)]
struct Tenant {
    served: u64,
    live: usize,
    admissions: u64,
    adapters: Vec<Adapter>,
    numbers: HashMap<Option<AdapterName>, usize>,
    /// Adapters that nobody uses.
    vacant: Vec<usize>,
    /// The oldest of each line, as `FairQueue::turns` has tenants.
    turns: BTreeSet<Turn>,
    /// The counter of the adapter that was served last.
    level: u64,
    by_age: BTreeSet<(SequenceId, usize)>,
    /// The entry in `FairQueue::turns`.
    counted: u64,
}

/// Priority, the adapter's counter when the entry was made, the sequence, and the adapter's number.
type Turn = (Reverse<i32>, u64, SequenceId, usize);

#[derive(Debug, Default)]
struct Adapter {
    name: Option<AdapterName>,
    served: u64,
    live: usize,
    /// Who waits, by priority.
    lines: HashMap<i32, Line>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: BTreeSet<SequenceId>,
    turn: Option<Turn>,
}

impl FairQueue {
    /// Number of those that wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// A sequence comes to life; it does not wait yet.
    pub fn join(
        &mut self,
        id: SequenceId,
        (tenant, weight): (&TenantId, NonZeroU32),
        adapter: Option<&AdapterName>,
        priority: i32,
    ) -> Ticket {
        let number = *self.numbers.entry(tenant.clone()).or_insert_with(|| {
            self.tenants.push(Tenant::default());
            self.tenants.len() - 1
        });
        let tenant = &mut self.tenants[number];
        if tenant.live == 0 {
            tenant.served = tenant.served.max(self.level);
        }
        tenant.live += 1;
        Ticket { id, tenant: number, adapter: tenant.join(adapter), priority, weight }
    }

    /// A sequence that does not wait is gone.
    pub fn leave(&mut self, ticket: Ticket) {
        let tenant = &mut self.tenants[ticket.tenant];
        tenant.live -= 1;
        tenant.leave(ticket.adapter);
    }

    /// A sequence that has joined waits from now on.
    pub fn push(&mut self, ticket: Ticket) {
        let tenant = &mut self.tenants[ticket.tenant];
        if tenant.by_age.is_empty() {
            tenant.counted = tenant.served;
            self.turns.insert((tenant.counted, ticket.tenant));
        }
        self.waiting += usize::from(tenant.by_age.insert((ticket.id, ticket.adapter)));
        tenant.change_line(ticket.adapter, ticket.priority, |waiting| waiting.insert(ticket.id));
    }

    /// Whose turn it is.
    pub fn next(&mut self) -> Option<SequenceId> {
        loop {
            let &(counted, number) = self.turns.first()?;
            let tenant = &mut self.tenants[number];
            if tenant.served == counted {
                return tenant.next();
            }
            self.turns.pop_first();
            tenant.counted = tenant.served;
            self.turns.insert((tenant.counted, number));
        }
    }

    /// It was this one's turn: it waits no longer and is charged for the prompt rows that are computed for it.
    pub fn admit(&mut self, ticket: Ticket, rows: usize) {
        self.remove(ticket);
        let tenant = &mut self.tenants[ticket.tenant];
        tenant.admissions += 1;
        tenant.level = tenant.level.max(tenant.adapters[ticket.adapter].served);
        self.level = self.level.max(tenant.served);
        self.charge(ticket, rows);
    }

    /// A sequence waits no longer. Returns whether it did.
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        let tenant = &mut self.tenants[ticket.tenant];
        if !tenant.by_age.remove(&(ticket.id, ticket.adapter)) {
            return false;
        }
        self.waiting -= 1;
        tenant.change_line(ticket.adapter, ticket.priority, |waiting| waiting.remove(&ticket.id));
        if tenant.by_age.is_empty() {
            self.turns.remove(&(tenant.counted, ticket.tenant));
        }
        true
    }

    /// Counts `tokens` served to a sequence. Its tenant's turn is put right when it is next looked at.
    pub fn charge(&mut self, ticket: Ticket, tokens: usize) {
        let (tenant, tokens) = (&mut self.tenants[ticket.tenant], tokens as u64);
        let weighed = tokens.saturating_mul(TOKEN) / u64::from(ticket.weight.get());
        tenant.served = tenant.served.saturating_add(weighed);
        let adapter = &mut tenant.adapters[ticket.adapter];
        adapter.served = adapter.served.saturating_add(tokens);
    }
}

impl Tenant {
    fn join(&mut self, name: Option<&AdapterName>) -> usize {
        let name = name.cloned();
        let number = *self.numbers.entry(name.clone()).or_insert_with(|| {
            self.vacant.pop().unwrap_or_else(|| {
                self.adapters.push(Adapter::default());
                self.adapters.len() - 1
            })
        });
        let adapter = &mut self.adapters[number];
        if adapter.live == 0 {
            (adapter.name, adapter.served) = (name, self.level);
        }
        adapter.live += 1;
        number
    }

    fn leave(&mut self, number: usize) {
        let adapter = &mut self.adapters[number];
        adapter.live -= 1;
        if adapter.live == 0 {
            self.numbers.remove(&adapter.name);
            self.vacant.push(number);
        }
    }

    fn next(&mut self) -> Option<SequenceId> {
        if self.admissions % BY_AGE == BY_AGE - 1 {
            return self.by_age.first().map(|&(id, _)| id);
        }
        loop {
            let &(Reverse(priority), counted, id, adapter) = self.turns.first()?;
            if self.adapters[adapter].served == counted {
                return Some(id);
            }
            self.change_line(adapter, priority, |_| false);
        }
    }

    /// Changes who waits in a line, and puts it where it belongs then.
    fn change_line(
        &mut self,
        number: usize,
        priority: i32,
        change: impl FnOnce(&mut BTreeSet<SequenceId>) -> bool,
    ) {
        let adapter = &mut self.adapters[number];
        let line = adapter.lines.entry(priority).or_default();
        change(&mut line.waiting);
        if let Some(turn) = line.turn.take() {
            self.turns.remove(&turn);
        }
        let Some(&oldest) = line.waiting.first() else {
            adapter.lines.remove(&priority);
            return;
        };
        let turn = (Reverse(priority), adapter.served, oldest, number);
        self.turns.insert(turn);
        line.turn = Some(turn);
    }
}
