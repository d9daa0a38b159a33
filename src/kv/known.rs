use std::collections::{HashMap, HashSet};

use super::BlockId;

/// Names the content of a block: equal keys, equal K/V rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockKey {
    /// Whose content it is: what is forgotten together.
    pub owner: u64,
    /// Digest of everything that the rows depend on.
    pub digest: [u8; 32],
}

/// Blocks whose content has a name, and among them the idle ones: held by nobody, kept until their place is needed.
///
/// The idle ones form a list through the blocks themselves, longest idle first, so that taking one out of its middle
/// costs no more than taking the first.
#[derive(Debug)]
pub(super) struct KnownBlocks {
    by_key: HashMap<BlockKey, BlockId>,
    /// Names of each block: a block may be known by all of its rows and by its first few.
    names: Vec<[Option<BlockKey>; 2]>,
    /// Neighbours in the list of idle blocks; the last entry is the list's own, behind its end and before its start.
    links: Vec<Link>,
    idle: usize,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

impl KnownBlocks {
    pub fn new(num_blocks: u32) -> Self {
        let links = (0..=num_blocks).map(|at| Link { older: at, newer: at }).collect();
        Self { by_key: HashMap::new(), names: vec![[None; 2]; num_blocks as usize], links, idle: 0 }
    }

    /// The block with this content.
    pub fn find(&self, key: &BlockKey) -> Option<BlockId> {
        self.by_key.get(key).copied()
    }

    pub fn is_named(&self, block: BlockId) -> bool {
        self.names[block.index()][0].is_some()
    }

    /// Gives a block a name; returns whether it took it. Content that is known already keeps its place, and a block
    /// bears two names at most.
    pub fn name(&mut self, block: BlockId, key: BlockKey) -> bool {
        let Some(place) = self.names[block.index()].iter_mut().find(|name| name.is_none()) else {
            return false;
        };
        let new = !self.by_key.contains_key(&key);
        if new {
            *place = Some(key);
            self.by_key.insert(key, block);
        }
        new
    }

    /// Takes a block's names: its rows are about to change.
    pub fn unname(&mut self, block: BlockId) {
        for key in std::mem::take(&mut self.names[block.index()]).into_iter().flatten() {
            self.by_key.remove(&key);
        }
    }

    /// Number of idle blocks.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// A named block is held by nobody any more.
    pub fn rest(&mut self, block: BlockId) {
        let (end, at) = (self.end(), block.0);
        let newest = std::mem::replace(&mut self.links[end].older, at);
        self.links[newest as usize].newer = at;
        self.links[block.index()] = Link { older: newest, newer: end as u32 };
        self.idle += 1;
    }

    /// An idle block is held again.
    pub fn wake(&mut self, block: BlockId) {
        let Link { older, newer } = self.links[block.index()];
        debug_assert!(self.idle > 0 && older != block.0, "{block:?} is not idle");
        self.links[older as usize].newer = newer;
        self.links[newer as usize].older = older;
        self.links[block.index()] = Link { older: block.0, newer: block.0 };
        self.idle -= 1;
    }

    /// Gives up the block that has been idle for longest.
    pub fn evict(&mut self) -> Option<BlockId> {
        let oldest = self.links[self.end()].newer;
        if self.idle == 0 {
            return None;
        }
        let block = BlockId(oldest);
        self.wake(block);
        self.unname(block);
        Some(block)
    }

    /// Takes every name of these owners. Returns the blocks that were idle under them and have no name left.
    pub fn forget(&mut self, owners: &HashSet<u64>) -> Vec<BlockId> {
        let mut freed = Vec::new();
        for at in 0..self.names.len() {
            let mut kept = [None; 2];
            let mut place = kept.iter_mut();
            for key in self.names[at].into_iter().flatten() {
                if owners.contains(&key.owner) {
                    self.by_key.remove(&key);
                } else if let Some(place) = place.next() {
                    *place = Some(key);
                }
            }
            let lost = self.names[at][0].is_some() && kept[0].is_none();
            self.names[at] = kept;
            let block = BlockId(at as u32);
            if lost && self.is_idle(block) {
                self.wake(block);
                freed.push(block);
            }
        }
        freed
    }

    pub fn is_idle(&self, block: BlockId) -> bool {
        self.links[block.index()].older != block.0
    }

    /// The list's own entry.
    fn end(&self) -> usize {
        self.links.len() - 1
    }
}
