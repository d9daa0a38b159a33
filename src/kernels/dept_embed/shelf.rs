//! Which adapters a GPU has, which are on their way there and which wait for room: book-keeping only, of no device.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Weak},
};

use super::{AdapterSource, Claim, ResidentUse, slab::Slab};

/// Orders in line before those that nobody wants any more are looked for.
const FEW: usize = 64;

/// The adapters of a GPU. Those that are wanted and not there stand in line, and the first in line waits until others have
/// made room: what requests hold stays, so that a crowd of more adapters than fit is served in turn and none twice.
pub(super) struct Shelf {
    slab: Slab,
    there: HashMap<u64, Entry>,
    line: VecDeque<Order>,
    /// The ids in line.
    in_line: HashSet<u64>,
    /// How long the line may get before it is looked through.
    most_in_line: usize,
    copies: u64,
    evictions: u64,
}

struct Entry {
    source: Weak<dyn AdapterSource>,
    /// The number of its copy; `None` before that has begun.
    copy: Option<u64>,
}

/// An adapter that is wanted.
pub(super) struct Order {
    pub id: u64,
    pub bytes: usize,
    pub source: Weak<dyn AdapterSource>,
}

/// An adapter to be copied, and where to.
pub(super) struct Errand {
    pub id: u64,
    pub start: usize,
    pub source: Arc<dyn AdapterSource>,
}

/// Where an adapter lies, once the copy of this number and all before it are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub start: usize,
    pub copy: u64,
}

impl Shelf {
    /// An empty one of `bytes`.
    pub fn new(bytes: usize) -> Self {
        let (there, line, in_line) = (HashMap::new(), VecDeque::new(), HashSet::new());
        let slab = Slab::new(bytes);
        Self { slab, there, line, in_line, most_in_line: FEW, copies: 0, evictions: 0 }
    }

    /// Puts an adapter in line, unless it is there, in line already or larger than all the memory.
    pub fn order(&mut self, order: Order) {
        let known = self.there.contains_key(&order.id);
        if !known && self.slab.could_hold(order.bytes) && self.in_line.insert(order.id) {
            self.line.push_back(order);
            self.shorten_line();
        }
    }

    /// Lets orders go that nobody wants any more, so that the line is not longer than twice the requests that hold adapters,
    /// however long its first waits for room.
    fn shorten_line(&mut self) {
        if self.line.len() < self.most_in_line {
            return;
        }
        let Self { line, in_line, .. } = self;
        line.retain(|order| {
            let wanted = order.source.upgrade().is_some_and(|source| source.claim() != Claim::None);
            wanted || !in_line.remove(&order.id)
        });
        self.most_in_line = FEW.max(2 * self.line.len());
    }

    /// A new step: what the one before it used may be overwritten, by what is copied behind its kernels.
    pub fn next_step(&mut self) {
        self.slab.next_step();
    }

    /// Where an adapter of this step lies; `None` where it has not been copied.
    pub fn find(&mut self, id: u64) -> Option<Spot> {
        let copy = self.there.get(&id)?.copy?;
        Some(Spot { start: self.slab.find(id)?, copy })
    }

    /// Whether somebody stands in line.
    pub fn has_orders(&self) -> bool {
        !self.line.is_empty()
    }

    /// What to copy next, for which room has been made. `None` where nothing is wanted, or what is wanted waits for room.
    pub fn next_errand(&mut self) -> Option<Errand> {
        loop {
            let Order { id, bytes, source } = self.line.front()?;
            let (id, bytes) = (*id, *bytes);
            // Who wanted it may have gone.
            let Some(source) = source.upgrade().filter(|source| source.claim() != Claim::None) else {
                self.leave_line();
                continue;
            };
            let mut gone = Vec::new();
            let there = &self.there;
            let claim = |id| there.get(&id).map_or(Claim::None, Entry::claim);
            let start = self.slab.take(id, bytes, claim, &mut gone);
            self.evictions += gone.len() as u64;
            for entry in gone.iter().filter_map(|id| self.there.remove(id)) {
                entry.tell(false);
            }
            let start = start?;
            self.leave_line();
            self.there.insert(id, Entry { source: Arc::downgrade(&source), copy: None });
            return Some(Errand { id, start, source });
        }
    }

    fn leave_line(&mut self) {
        if let Some(order) = self.line.pop_front() {
            self.in_line.remove(&order.id);
        }
    }

    /// The copy of an errand has begun, behind all that began before it.
    pub fn copied(&mut self, id: u64) {
        self.copies += 1;
        if let Some(entry) = self.there.get_mut(&id) {
            entry.copy = Some(self.copies);
            entry.tell(true);
        }
    }

    /// The copy of an errand can't be made.
    pub fn failed(&mut self, id: u64) {
        self.slab.remove(id);
        self.there.remove(&id);
    }

    /// What is there.
    pub fn resident_use(&self) -> ResidentUse {
        let (adapters, bytes) = self.slab.used();
        ResidentUse { adapters, bytes, evictions: self.evictions }
    }
}

impl Entry {
    fn claim(&self) -> Claim {
        match (self.copy, self.source.upgrade()) {
            // Who copies writes there.
            (None, _) => Claim::Leased,
            (Some(_), Some(source)) => source.claim(),
            (Some(_), None) => Claim::None,
        }
    }

    fn tell(&self, on_device: bool) {
        if let Some(source) = self.source.upgrade() {
            source.moved(on_device);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use super::{
        super::{AdapterSlot, UpdateSlot},
        *,
    };

    struct Adapter {
        id: u64,
        claim: Mutex<Claim>,
        on_device: AtomicBool,
    }

    impl Adapter {
        fn new(id: u64, claim: Claim) -> Arc<Self> {
            Arc::new(Self { id, claim: Mutex::new(claim), on_device: AtomicBool::new(false) })
        }

        fn set(&self, claim: Claim) {
            *self.claim.lock().unwrap() = claim;
        }

        fn order(self: &Arc<Self>, bytes: usize) -> Order {
            let source: Weak<Self> = Arc::downgrade(self);
            Order { id: self.id, bytes, source }
        }

        fn is_there(&self) -> bool {
            self.on_device.load(Ordering::Relaxed)
        }
    }

    impl AdapterSource for Adapter {
        fn slot(&self) -> AdapterSlot<'_> {
            AdapterSlot { prompt: &[], update: UpdateSlot::None }
        }

        fn claim(&self) -> Claim {
            *self.claim.lock().unwrap()
        }

        fn moved(&self, on_device: bool) {
            self.on_device.store(on_device, Ordering::Relaxed);
        }
    }

    const PIECE: usize = 256;

    /// Copies all that can be copied; who that was.
    fn work(shelf: &mut Shelf) -> Vec<u64> {
        let mut done = Vec::new();
        while let Some(errand) = shelf.next_errand() {
            assert_ne!(errand.source.claim(), Claim::None, "{}", errand.id);
            shelf.copied(errand.id);
            done.push(errand.id);
        }
        done
    }

    #[test]
    fn a_crowd_of_more_adapters_than_fit_is_served_in_turn_and_none_is_copied_twice() {
        let adapters: Vec<_> = (0..40).map(|id| Adapter::new(id, Claim::Leased)).collect();
        let mut shelf = Shelf::new(4 * PIECE);
        for adapter in &adapters {
            shelf.order(adapter.order(PIECE));
            shelf.order(adapter.order(PIECE));
        }
        let mut copied = work(&mut shelf);
        assert_eq!(copied, [0, 1, 2, 3]);
        for (at, adapter) in adapters.iter().enumerate() {
            shelf.next_step();
            assert!(adapter.is_there() && shelf.find(adapter.id).is_some(), "{at}");
            assert!(work(&mut shelf).is_empty(), "all are leased");
            // Its request ends; the step that used it is the latest one.
            adapter.set(Claim::None);
            assert!(work(&mut shelf).is_empty(), "its kernels may still read it");
            shelf.next_step();
            copied.extend(work(&mut shelf));
        }
        assert_eq!(copied, (0..40).collect::<Vec<u64>>());
        assert_eq!(shelf.resident_use(), ResidentUse { adapters: 4, bytes: 4 * PIECE, evictions: 36 });
        assert!(adapters[35..].iter().filter(|adapter| adapter.is_there()).count() == 4);
    }

    #[test]
    fn what_nobody_wants_any_more_and_what_never_fits_hold_nobody_up() {
        let mut shelf = Shelf::new(2 * PIECE);
        let [gone, given_up, large, wanted] = [1, 2, 3, 4].map(|id| Adapter::new(id, Claim::Leased));
        for (adapter, bytes) in [(&gone, PIECE), (&given_up, PIECE), (&large, 3 * PIECE), (&wanted, PIECE)] {
            shelf.order(adapter.order(bytes));
        }
        drop(gone);
        given_up.set(Claim::None);
        assert_eq!(work(&mut shelf), [4]);
        assert!(!shelf.has_orders());
        // It may be wanted again.
        given_up.set(Claim::Pinned);
        shelf.order(given_up.order(PIECE));
        assert_eq!(work(&mut shelf), [2]);
    }

    #[test]
    fn a_line_that_stands_does_not_grow_by_those_who_have_left_it() {
        let mut shelf = Shelf::new(PIECE);
        let holder = Adapter::new(0, Claim::Leased);
        shelf.order(holder.order(PIECE));
        assert_eq!(work(&mut shelf), [0]);
        let waiting: Vec<_> = (1..4).map(|id| Adapter::new(id, Claim::Leased)).collect();
        for adapter in &waiting {
            shelf.order(adapter.order(PIECE));
        }
        for id in 4..10_000 {
            // Its request is served by a copy of its own, and gone.
            let adapter = Adapter::new(id, Claim::Leased);
            shelf.order(adapter.order(PIECE));
            assert!(work(&mut shelf).is_empty());
        }
        assert!(shelf.line.len() <= FEW && shelf.in_line.len() == shelf.line.len());
        holder.set(Claim::None);
        assert_eq!(work(&mut shelf), [1]);
        waiting[0].set(Claim::None);
        assert_eq!(work(&mut shelf), [2]);
    }

    #[test]
    fn what_is_on_its_way_is_not_used_and_does_not_go() {
        let mut shelf = Shelf::new(PIECE);
        let [first, second] = [1, 2].map(|id| Adapter::new(id, Claim::Leased));
        shelf.order(first.order(PIECE));
        shelf.order(second.order(PIECE));
        let errand = shelf.next_errand().unwrap();
        assert_eq!((errand.id, errand.start), (1, 0));
        first.set(Claim::None);
        assert!(shelf.next_errand().is_none() && shelf.find(1).is_none());
        shelf.copied(1);
        assert_eq!(shelf.find(1), Some(Spot { start: 0, copy: 1 }));
        shelf.next_step();
        assert_eq!(work(&mut shelf), [2]);
        assert_eq!((shelf.find(1), shelf.find(2)), (None, Some(Spot { start: 0, copy: 2 })));
        assert!(!first.is_there() && second.is_there());
    }

    #[test]
    fn a_copy_that_fails_gives_its_room_back() {
        let mut shelf = Shelf::new(PIECE);
        let [first, second] = [1, 2].map(|id| Adapter::new(id, Claim::Leased));
        shelf.order(first.order(PIECE));
        shelf.order(second.order(PIECE));
        let errand = shelf.next_errand().unwrap();
        shelf.failed(errand.id);
        assert_eq!(work(&mut shelf), [2]);
        assert!(!first.is_there());
        assert_eq!(shelf.resident_use(), ResidentUse { adapters: 1, bytes: PIECE, evictions: 0 });
    }

    #[test]
    fn a_copy_of_what_its_host_has_let_go_makes_room_first() {
        let mut shelf = Shelf::new(2 * PIECE);
        let [pinned, dropped, wanted] = [1, 2, 3].map(|id| Adapter::new(id, Claim::Pinned));
        shelf.order(pinned.order(PIECE));
        shelf.order(dropped.order(PIECE));
        assert_eq!(work(&mut shelf), [1, 2]);
        drop(dropped);
        shelf.order(wanted.order(PIECE));
        assert_eq!(work(&mut shelf), [3]);
        assert!(pinned.is_there() && shelf.find(1).is_some());
    }
}
