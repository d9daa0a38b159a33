//! Who lies where in a piece of memory: book-keeping only.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Pieces start and end at multiples of this: whole sectors of a card's memory.
const GRAIN: usize = 256;

/// A piece of memory cut into pieces by id. Those that no recent step wanted make room for new ones.
#[derive(Debug)]
pub(super) struct Slab {
    /// Lengths by start; neighbours are one piece.
    free: BTreeMap<usize, usize>,
    taken: HashMap<u64, Taken>,
    /// The ids by the last step that wanted them.
    by_step: BTreeSet<(u64, u64)>,
    step: u64,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    start: usize,
    bytes: usize,
    step: u64,
}

impl Slab {
    /// All of it free.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes / GRAIN * GRAIN;
        let free = (bytes > 0).then_some((0, bytes)).into_iter().collect();
        Self { free, taken: HashMap::new(), by_step: BTreeSet::new(), step: 0, bytes }
    }

    /// A new step: what the one before it wanted may go.
    pub fn next_step(&mut self) {
        self.step += 1;
    }

    /// Where `id` lies; this step wants it.
    pub fn find(&mut self, id: u64) -> Option<usize> {
        let taken = self.taken.get_mut(&id)?;
        self.by_step.remove(&(taken.step, id));
        taken.step = self.step;
        self.by_step.insert((taken.step, id));
        Some(taken.start)
    }

    /// Makes room of `bytes` for `id`, which this step wants and which is not there. Who had to go is added to `gone`. `None`
    /// where this step's own leave no room.
    pub fn take(&mut self, id: u64, bytes: usize, gone: &mut Vec<u64>) -> Option<usize> {
        let bytes = bytes.max(1).next_multiple_of(GRAIN);
        if bytes > self.bytes {
            return None;
        }
        loop {
            if let Some((&start, &length)) = self.free.iter().find(|&(_, &length)| length >= bytes) {
                self.free.remove(&start);
                if length > bytes {
                    self.free.insert(start + bytes, length - bytes);
                }
                self.taken.insert(id, Taken { start, bytes, step: self.step });
                self.by_step.insert((self.step, id));
                return Some(start);
            }
            let &(step, oldest) = self.by_step.first()?;
            if step == self.step {
                return None;
            }
            self.remove(oldest);
            gone.push(oldest);
        }
    }

    /// Pieces in use, and their bytes.
    pub fn used(&self) -> (usize, usize) {
        let free: usize = self.free.values().sum();
        (self.taken.len(), self.bytes - free)
    }

    /// Frees what `id` has.
    pub fn remove(&mut self, id: u64) {
        let Some(Taken { mut start, mut bytes, step }) = self.taken.remove(&id) else { return };
        self.by_step.remove(&(step, id));
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

    proptest! {
        #[test]
        fn pieces_never_overlap_and_nothing_is_lost(
            bytes in 0usize..20_000,
            steps in prop::collection::vec(prop::collection::vec((0u64..12, 0usize..6000), 1..6), 1..40),
        ) {
            let mut slab = Slab::new(bytes);
            for step in steps {
                slab.next_step();
                let mut wanted = Vec::new();
                for (id, size) in step {
                    // The size of an id never changes.
                    let size = size.min(300 * (id as usize + 1));
                    let mut gone = Vec::new();
                    if slab.find(id).is_some() || slab.take(id, size, &mut gone).is_some() {
                        wanted.push(id);
                    }
                    prop_assert!(gone.iter().all(|gone| !wanted.contains(gone)), "{gone:?} of {wanted:?}");
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
                let free: Vec<_> = slab.free.iter().collect();
                prop_assert!(free.windows(2).all(|pair| pair[0].0 + pair[0].1 < *pair[1].0), "{free:?}");
            }
        }
    }

    #[test]
    fn who_was_not_wanted_for_longest_goes_first() {
        let mut slab = Slab::new(3 * GRAIN);
        let mut gone = Vec::new();
        for id in 1..=3 {
            slab.next_step();
            assert_eq!(slab.take(id, GRAIN, &mut gone), Some((id as usize - 1) * GRAIN));
        }
        slab.next_step();
        assert_eq!(slab.find(1), Some(0));
        assert_eq!(slab.take(4, GRAIN - 1, &mut gone), Some(GRAIN));
        assert_eq!(gone, [2]);
        assert_eq!(slab.take(5, 2 * GRAIN, &mut gone), None, "1 and 4 are of this step");
        assert_eq!(slab.take(6, 4 * GRAIN, &mut gone), None, "it never fits");
        assert_eq!((slab.find(1), slab.find(4)), (Some(0), Some(GRAIN)));
        slab.next_step();
        gone.clear();
        // 3 went in vain a step ago. 1 goes, whose place does not touch its, and then 4 between them.
        assert_eq!(slab.take(5, 2 * GRAIN, &mut gone), Some(0), "neighbours become one piece");
        assert_eq!((gone, slab.used()), (vec![1, 4], (1, 2 * GRAIN)));
    }
}
