//! Who lies where in a piece of memory: book-keeping only.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Claim;

/// Pieces start and end at multiples of this: whole sectors of a card's memory.
const GRAIN: usize = 256;

/// A piece of memory cut into pieces by id. Those that were not wanted for longest, and that nobody claims, make room.
#[derive(Debug)]
pub(super) struct Slab {
    /// Lengths by start; neighbours are one piece.
    free: BTreeMap<usize, usize>,
    taken: HashMap<u64, Taken>,
    /// Ids by the turn in which they go.
    by_turn: BTreeSet<(u64, u64)>,
    next_turn: u64,
    /// From 1.
    step: u64,
    bytes: usize,
    used: usize,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    start: usize,
    bytes: usize,
    turn: u64,
    /// The last step that wanted it; 0 is none.
    step: u64,
}

impl Slab {
    /// All of it free.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes / GRAIN * GRAIN;
        let free = (bytes > 0).then_some((0, bytes)).into_iter().collect();
        let (taken, by_turn) = (HashMap::new(), BTreeSet::new());
        Self { free, taken, by_turn, next_turn: 0, step: 1, bytes, used: 0 }
    }

    /// A new step: what the one before it wanted may go.
    pub fn next_step(&mut self) {
        self.step += 1;
    }

    /// Where `id` lies; this step wants it.
    pub fn find(&mut self, id: u64) -> Option<usize> {
        self.send_back(id)?;
        let taken = self.taken.get_mut(&id)?;
        taken.step = self.step;
        Some(taken.start)
    }

    /// Whether it could hold `bytes` if nothing else were there.
    pub fn could_hold(&self, bytes: usize) -> bool {
        bytes.max(1).next_multiple_of(GRAIN) <= self.bytes
    }

    /// Makes room of `bytes` for `id`, which is not there. Who had to go is added to `gone`: of those that no request holds
    /// and this step does not want, the ones that are not pinned first. `None` where that is not enough; some may have gone
    /// in vain.
    pub fn take(
        &mut self,
        id: u64,
        bytes: usize,
        claim: impl Fn(u64) -> Claim,
        gone: &mut Vec<u64>,
    ) -> Option<usize> {
        if !self.could_hold(bytes) {
            return None;
        }
        let bytes = bytes.max(1).next_multiple_of(GRAIN);
        let (mut left, mut pinned) = (self.taken.len(), Vec::new());
        loop {
            if let Some(start) = self.place(id, bytes) {
                return Some(start);
            }
            let Some(&(_, first)) = self.by_turn.first().filter(|_| left > 0) else { break };
            left -= 1;
            let wanted = self.taken.get(&first).is_some_and(|taken| taken.step == self.step);
            match claim(first) {
                Claim::None if !wanted => {
                    self.remove(first);
                    gone.push(first);
                    continue;
                }
                Claim::Pinned if !wanted => pinned.push(first),
                Claim::None | Claim::Pinned | Claim::Leased => {}
            }
            // It is not looked at again before all the others.
            self.send_back(first);
        }
        pinned.into_iter().find_map(|first| {
            self.remove(first);
            gone.push(first);
            self.place(id, bytes)
        })
    }

    /// Cuts `bytes` for `id` out of the first free piece that holds them.
    fn place(&mut self, id: u64, bytes: usize) -> Option<usize> {
        let (&start, &length) = self.free.iter().find(|&(_, &length)| length >= bytes)?;
        self.free.remove(&start);
        if length > bytes {
            self.free.insert(start + bytes, length - bytes);
        }
        self.taken.insert(id, Taken { start, bytes, turn: self.next_turn, step: 0 });
        self.by_turn.insert((self.next_turn, id));
        self.next_turn += 1;
        self.used += bytes;
        Some(start)
    }

    /// Lets `id` go behind all others.
    fn send_back(&mut self, id: u64) -> Option<()> {
        let taken = self.taken.get_mut(&id)?;
        self.by_turn.remove(&(taken.turn, id));
        taken.turn = self.next_turn;
        self.by_turn.insert((self.next_turn, id));
        self.next_turn += 1;
        Some(())
    }

    /// Pieces in use, and their bytes.
    pub fn used(&self) -> (usize, usize) {
        (self.taken.len(), self.used)
    }

    /// Frees what `id` has.
    pub fn remove(&mut self, id: u64) {
        let Some(Taken { mut start, mut bytes, turn, .. }) = self.taken.remove(&id) else { return };
        self.by_turn.remove(&(turn, id));
        self.used -= bytes;
        if let Some((&before, &length)) = self.free.range(..start).next_back()
            && before + length == start
        {
            self.free.remove(&before);
            (start, bytes) = (before, bytes + length);
        }
        if let Some(length) = self.free.remove(&(start + bytes)) {
            bytes += length;
        }
        self.free.insert(start, bytes);
    }

    /// The pieces in use, for tests.
    #[cfg(test)]
    fn pieces(&self) -> Vec<std::ops::Range<usize>> {
        self.taken.values().map(|taken| taken.start..taken.start + taken.bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;

    /// Every fourth is pinned, and the one behind it leased.
    fn claim(id: u64) -> Claim {
        match id % 4 {
            0 => Claim::Pinned,
            1 => Claim::Leased,
            _ => Claim::None,
        }
    }

    proptest! {
        #[test]
        fn pieces_never_overlap_and_nothing_is_lost(
            bytes in 0usize..20_000,
            steps in prop::collection::vec(prop::collection::vec((0u64..12, 0usize..6000, any::<bool>()), 1..6), 1..40),
        ) {
            let mut slab = Slab::new(bytes);
            for step in steps {
                slab.next_step();
                let mut wanted = Vec::new();
                for (id, size, prefetched) in step {
                    // The size of an id never changes.
                    let size = size.min(300 * (id as usize + 1));
                    let mut gone = Vec::new();
                    if slab.find(id).is_some() {
                        wanted.push(id);
                    } else if slab.take(id, size, claim, &mut gone).is_some() && !prefetched {
                        slab.find(id).unwrap();
                        wanted.push(id);
                    }
                    prop_assert!(gone.iter().all(|id| !wanted.contains(id)), "{gone:?} of {wanted:?}");
                    prop_assert!(gone.iter().all(|&id| claim(id) != Claim::Leased), "{gone:?}");
                    let pinned_went = gone.iter().any(|&id| claim(id) == Claim::Pinned);
                    let mut others = slab.taken.keys().filter(|&&other| other != id && !wanted.contains(&other));
                    prop_assert!(!pinned_went || others.all(|&other| claim(other) != Claim::None), "pins go last");
                }
                prop_assert!(wanted.iter().all(|id| slab.taken.contains_key(id)));
                let free = slab.free.iter().map(|(&start, &length)| start..start + length);
                let mut all: Vec<Range<usize>> = free.chain(slab.pieces()).collect();
                all.sort_by_key(|piece| piece.start);
                let ends = all.iter().scan(0, |end, piece| {
                    let fits = piece.start == *end && piece.end > piece.start;
                    *end = piece.end;
                    Some(fits)
                });
                prop_assert!(ends.into_iter().all(|fits| fits), "{all:?}");
                prop_assert_eq!(all.last().map_or(0, |piece| piece.end), bytes / GRAIN * GRAIN);
                let used: usize = slab.pieces().iter().map(Range::len).sum();
                prop_assert_eq!(slab.used(), (slab.taken.len(), used));
                prop_assert_eq!(slab.by_turn.len(), slab.taken.len());
                let free: Vec<_> = slab.free.iter().collect();
                prop_assert!(free.windows(2).all(|pair| pair[0].0 + pair[0].1 < *pair[1].0), "{free:?}");
            }
        }
    }

    #[test]
    fn who_was_not_wanted_for_longest_goes_first() {
        let mut slab = Slab::new(3 * GRAIN);
        let mut gone = Vec::new();
        let mut take = |slab: &mut Slab, id, bytes| {
            let start = slab.take(id, bytes, |_| Claim::None, &mut gone);
            (start, std::mem::take(&mut gone))
        };
        for id in 1..=3 {
            assert_eq!(take(&mut slab, id, GRAIN), (Some((id as usize - 1) * GRAIN), vec![]));
        }
        slab.next_step();
        assert_eq!(slab.find(1), Some(0));
        assert_eq!(take(&mut slab, 4, GRAIN - 1), (Some(GRAIN), vec![2]));
        assert_eq!(slab.find(4), Some(GRAIN));
        assert_eq!(take(&mut slab, 5, 2 * GRAIN), (None, vec![3]), "1 and 4 are wanted; 3 goes in vain");
        assert_eq!(take(&mut slab, 6, 4 * GRAIN), (None, vec![]), "it never fits");
        assert_eq!((slab.find(1), slab.find(4)), (Some(0), Some(GRAIN)));
        slab.next_step();
        // 1 goes, whose place does not touch 3's, and then 4 between them.
        assert_eq!(take(&mut slab, 5, 2 * GRAIN), (Some(0), vec![1, 4]), "neighbours become one piece");
        assert_eq!(slab.used(), (1, 2 * GRAIN));
    }

    #[test]
    fn pinned_ones_go_when_nothing_else_can_and_no_more_of_them_than_needed() {
        let mut slab = Slab::new(4 * GRAIN);
        let mut gone = Vec::new();
        for id in [4, 8, 1, 2] {
            slab.take(id, GRAIN, claim, &mut gone).unwrap();
        }
        assert_eq!(slab.take(3, GRAIN, claim, &mut gone), Some(3 * GRAIN), "2 is nobody's");
        assert_eq!(slab.take(5, GRAIN, claim, &mut gone), Some(3 * GRAIN), "and so is 3");
        assert_eq!(slab.take(9, GRAIN, claim, &mut gone), Some(0), "1 and 5 are leased, 4 is the older pin");
        assert_eq!(slab.take(13, 2 * GRAIN, claim, &mut gone), None, "8 alone is not enough");
        assert_eq!(gone, [2, 3, 4, 8]);
    }
}
