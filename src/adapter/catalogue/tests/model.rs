//! Any changes, beside a plain map of what they should leave.

use proptest::prelude::*;

use super::*;

/// One change, or a look.
#[derive(Debug, Clone)]
enum Op {
    Put { at: usize, number: u8, condition: u8 },
    Delete { at: usize },
    Alias { at: usize, target: usize },
    Unalias { at: usize },
    Reopen,
    Look { other: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0_usize..3, 0_u8..6, 0_u8..4).prop_map(|(at, number, condition)| Op::Put { at, number, condition }),
        2 => (0_usize..4).prop_map(|at| Op::Delete { at }),
        2 => (2_usize..4, 0_usize..4).prop_map(|(at, target)| Op::Alias { at, target }),
        1 => (0_usize..4).prop_map(|at| Op::Unalias { at }),
        1 => Just(Op::Reopen),
        2 => any::<bool>().prop_map(|other| Op::Look { other }),
    ]
}

const NAMES: [&str; 4] = ["x", "y", "z", "w"];

#[derive(Debug, Clone, PartialEq)]
enum Model {
    Adapter(Vec<u8>),
    Alias(usize, u8),
}

/// A catalogue beside a plain map of what it should say.
struct Pair {
    root: tempfile::TempDir,
    catalogue: Catalogue,
    other: Catalogue,
    model: HashMap<usize, Model>,
}

impl Pair {
    async fn apply(&mut self, op: Op) {
        let space = home("a");
        match op {
            Op::Put { at, number, condition } => self.put(at, number, condition).await,
            Op::Delete { at } => {
                let deleted =
                    self.catalogue.delete(&space, &name(NAMES[at]), false, Precondition::None).await;
                let aliased =
                    self.model.values().any(|held| matches!(held, Model::Alias(target, _) if *target == at));
                let there = matches!(self.model.get(&at), Some(Model::Adapter(_)));
                assert_eq!(deleted.is_ok(), there && !aliased, "{deleted:?}");
                if deleted.is_ok() {
                    self.model.remove(&at);
                }
            }
            Op::Alias { at, target } => {
                let (alias, target_ref) = (name(NAMES[at]), wanted(NAMES[target]));
                let set = self.catalogue.set_alias(&space, &alias, &target_ref, Precondition::None);
                let set = set.await.map(drop);
                let current = match self.model.get(&target) {
                    Some(Model::Adapter(versions)) => versions.last().copied(),
                    _ => None,
                };
                let free = !matches!(self.model.get(&at), Some(Model::Adapter(_)));
                assert_eq!(set.is_ok(), current.is_some() && free, "{set:?}");
                if let (Some(number), Ok(())) = (current, set) {
                    self.model.insert(at, Model::Alias(target, number));
                }
            }
            Op::Unalias { at } => {
                let deleted = self.catalogue.delete(&space, &name(NAMES[at]), true, Precondition::None).await;
                assert_eq!(deleted.is_ok(), matches!(self.model.get(&at), Some(Model::Alias(..))));
                if deleted.is_ok() {
                    self.model.remove(&at);
                }
            }
            Op::Reopen => self.catalogue = open(self.root.path()).await,
            Op::Look { other } => {
                self.other.refresh().await.unwrap();
                let catalogue = if other { &self.other } else { &self.catalogue };
                for (at, what) in NAMES.iter().enumerate() {
                    let expected = match self.model.get(&at) {
                        Some(Model::Adapter(versions)) => versions.last().copied(),
                        Some(Model::Alias(_, number)) => Some(*number),
                        None => None,
                    };
                    assert_eq!(value(catalogue, "a", what).await.ok(), expected.map(f32::from), "{what}");
                }
                let listed = catalogue.list(&tenant("a"), (9, None), |_| true).0.len();
                assert_eq!(listed, self.model.len());
            }
        }
    }

    async fn put(&mut self, at: usize, number: u8, condition: u8) {
        let held = self.model.get(&at).cloned();
        let current = match &held {
            Some(Model::Adapter(versions)) => versions.last().copied(),
            Some(Model::Alias(_, number)) => Some(*number),
            None => None,
        };
        let is = version_of(files(f32::from(number), 2));
        let (condition, holds) = match condition {
            0 => (Precondition::Absent, current.is_none()),
            1 => (Precondition::Is(is), current == Some(number)),
            2 => (Precondition::Present, current.is_some()),
            _ => (Precondition::None, true),
        };
        let put =
            self.catalogue.put(&home("a"), &name(NAMES[at]), files(f32::from(number), 2), condition).await;
        let is_alias = matches!(held, Some(Model::Alias(..)));
        assert_eq!(put.is_ok(), holds && !is_alias, "{:?}", put.map(|put| put.change));
        if holds && !is_alias {
            let entry = self.model.entry(at).or_insert(Model::Adapter(Vec::new()));
            let Model::Adapter(versions) = entry else { unreachable!() };
            versions.retain(|known| *known != number);
            versions.push(number);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_is_done_the_store_says_what_was_done(ops in prop::collection::vec(op(), 0..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let root = tempfile::tempdir().unwrap();
            let (catalogue, other) = (open(root.path()).await, open(root.path()).await);
            let mut pair = Pair { root, catalogue, other, model: HashMap::new() };
            for op in ops {
                pair.apply(op).await;
            }
            pair.apply(Op::Reopen).await;
            pair.apply(Op::Look { other: false }).await;
            pair.apply(Op::Look { other: true }).await;
        });
    }
}
