use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::scheduler::queue::{BY_AGE, TOKEN, Ticket};

fn named(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn weight(weight: u32) -> NonZeroU32 {
    NonZeroU32::new(weight).unwrap()
}

/// A queue, and the tickets of who is in it.
#[derive(Default)]
struct Desk {
    queue: FairQueue,
    tickets: BTreeMap<SequenceId, Ticket>,
    next: u64,
}

impl Desk {
    fn ask(&mut self, tenant: (&str, u32), adapter: Option<&str>, priority: i32) -> u64 {
        let id = SequenceId(self.next);
        self.next += 1;
        let adapter = adapter.map(|name| name.parse().unwrap());
        let ticket = self.queue.join(id, (&named(tenant.0), weight(tenant.1)), adapter.as_ref(), priority);
        self.queue.push(ticket);
        self.tickets.insert(id, ticket);
        id.0
    }

    fn ask_all(&mut self, count: usize, tenant: (&str, u32), adapter: Option<&str>, priority: i32) {
        for _ in 0..count {
            self.ask(tenant, adapter, priority);
        }
    }

    /// Serves whose turn it is `tokens` tokens. It is gone then.
    fn serve(&mut self, tokens: usize) -> Option<u64> {
        let id = self.queue.next()?;
        let ticket = self.tickets.remove(&id).unwrap();
        self.queue.admit(ticket, tokens);
        self.queue.leave(ticket);
        Some(id.0)
    }

    fn order(&mut self, tokens: usize) -> Vec<u64> {
        std::iter::from_fn(|| self.serve(tokens)).collect()
    }
}

#[test]
fn tenants_take_turns_however_many_requests_each_has() {
    let mut desk = Desk::default();
    desk.ask_all(6, ("many", 1), None, 0);
    desk.ask_all(2, ("few", 1), None, 9);
    assert_eq!(desk.order(10), [0, 6, 1, 7, 2, 3, 4, 5]);
    assert_eq!((desk.queue.len(), desk.queue.next()), (0, None));
}

#[test]
fn a_weight_of_three_is_three_shares() {
    let mut desk = Desk::default();
    desk.ask_all(8, ("one", 1), None, 0);
    desk.ask_all(8, ("three", 3), None, 0);
    let served: Vec<bool> = desk.order(12).into_iter().take(8).map(|id| id >= 8).collect();
    assert_eq!(served.iter().filter(|&&three| three).count(), 6, "{served:?}");
}

#[test]
fn rest_is_not_saved_up() {
    let mut desk = Desk::default();
    desk.ask_all(4, ("busy", 1), None, 0);
    assert_eq!(desk.order(1000), [0, 1, 2, 3]);
    // Both come anew; without a common level the second would be served 4000 tokens before it was the first's turn.
    desk.ask_all(3, ("busy", 1), None, 0);
    desk.ask_all(3, ("fresh", 1), None, 0);
    assert_eq!(desk.order(10), [7, 8, 9, 4, 5, 6], "level with who was served last: 3000 to 4000");
}

#[test]
fn inside_a_tenant_priority_then_adapters_in_turn_then_arrival() {
    let mut desk = Desk::default();
    for _ in 0..3 {
        desk.ask(("a", 1), Some("popular"), 0);
    }
    desk.ask(("a", 1), Some("rare"), 0);
    desk.ask(("a", 1), None, 1);
    // The urgent one; the oldest of the least served adapters; the other adapter; the oldest, as every fourth; the rest.
    assert_eq!(desk.order(10), [4, 0, 3, 1, 2]);
}

#[test]
fn every_fourth_admission_is_the_oldest_request_and_nobody_starves() {
    let mut desk = Desk::default();
    let patient = desk.ask(("a", 1), None, i32::MIN);
    let mut served = Vec::new();
    for _ in 0..BY_AGE {
        desk.ask(("a", 1), None, i32::MAX);
        desk.ask(("a", 1), None, i32::MAX);
        served.extend(desk.serve(10));
    }
    assert_eq!(served.last(), Some(&patient));
}

#[test]
fn who_leaves_the_queue_takes_nobodys_turn() {
    let mut desk = Desk::default();
    let [first, second, third] = [0, 0, 5].map(|priority| desk.ask(("a", 1), None, priority));
    let gone = desk.tickets[&SequenceId(third)];
    assert!(desk.queue.remove(gone) && !desk.queue.remove(gone));
    desk.queue.leave(gone);
    assert_eq!((desk.queue.len(), desk.order(1)), (2, vec![first, second]));
}

#[derive(Debug, Clone)]
enum Op {
    Ask { tenant: usize, adapter: usize, priority: i32 },
    Serve { tokens: usize },
    Withdraw(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0_usize..3, 0_usize..4, -2..=2).prop_map(|(tenant, adapter, priority)| Op::Ask { tenant, adapter, priority }),
        4 => (1_usize..50).prop_map(|tokens| Op::Serve { tokens }),
        1 => any::<usize>().prop_map(Op::Withdraw),
    ]
}

const TENANTS: [(&str, u32); 3] = [("a", 1), ("b", 2), ("c", 5)];
const ADAPTERS: [Option<&str>; 4] = [None, Some("x"), Some("y"), Some("z")];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// A request waits for at most four admissions of its tenant for itself and for each older one, whoever comes later.
    #[test]
    fn waits_are_bounded(ops in prop::collection::vec(op(), 0..200)) {
        let mut desk = Desk::default();
        // By request: its tenant, and the admissions of its tenant that it may still wait for.
        let mut patience: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
        let served = |desk: &mut Desk, patience: &mut BTreeMap<u64, (usize, u64)>, tokens| {
            let Some(id) = desk.serve(tokens) else { return false };
            let (tenant, _) = patience.remove(&id).unwrap();
            for (waiting, left) in patience.values_mut().filter(|(waiting, _)| *waiting == tenant).map(|(w, left)| (w, left)) {
                assert!(*left > 0, "a request of tenant {waiting} waits for too long");
                *left -= 1;
            }
            true
        };
        for op in ops {
            match op {
                Op::Ask { tenant, adapter, priority } => {
                    let id = desk.ask(TENANTS[tenant], ADAPTERS[adapter], priority);
                    let older = patience.values().filter(|(other, _)| *other == tenant).count() as u64;
                    patience.insert(id, (tenant, BY_AGE * (older + 1) - 1));
                }
                Op::Serve { tokens } => {
                    served(&mut desk, &mut patience, tokens);
                }
                Op::Withdraw(index) => {
                    let Some(&id) = desk.tickets.keys().nth(index % desk.tickets.len().max(1)) else { continue };
                    let ticket = desk.tickets.remove(&id).unwrap();
                    assert!(desk.queue.remove(ticket));
                    desk.queue.leave(ticket);
                    patience.remove(&id.0);
                }
            }
            prop_assert_eq!(desk.queue.len(), patience.len());
        }
        while served(&mut desk, &mut patience, 1) {}
        prop_assert!(patience.is_empty());
    }

    /// While two tenants have someone waiting, what they were served for their weight differs by one request at most.
    #[test]
    fn backlogged_tenants_are_served_by_weight(
        costs in prop::collection::vec(1_usize..50, 1..120),
        priorities in prop::collection::vec(-2..=2, 120),
    ) {
        let mut desk = Desk::default();
        let mut owner = BTreeMap::new();
        for (tenant, who) in TENANTS.into_iter().enumerate() {
            for (at, &priority) in priorities.iter().enumerate() {
                owner.insert(desk.ask(who, ADAPTERS[at % 4], priority), tenant);
            }
        }
        let mut served = [0_u64; 3];
        for tokens in costs {
            let tenant = owner[&desk.serve(tokens).unwrap()];
            served[tenant] += tokens as u64 * TOKEN / u64::from(TENANTS[tenant].1);
            let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
            prop_assert!(most - least <= 50 * TOKEN, "{served:?}");
        }
    }
}
