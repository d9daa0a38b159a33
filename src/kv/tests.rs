use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
};

use proptest::prelude::*;

use super::*;

fn pool(num_blocks: u32, block_size: usize) -> BlockPool {
    BlockPool::new(num_blocks, NonZeroUsize::new(block_size).unwrap())
}

fn ids(table: &BlockTable) -> Vec<usize> {
    table.blocks().iter().map(|block| block.index()).collect()
}

#[test]
fn a_table_takes_a_block_only_when_the_last_one_is_full() {
    let mut pool = pool(4, 3);
    let mut table = pool.table(12);
    assert_eq!(pool.append_slots(&mut table, 0), Ok(None));
    assert!(table.is_empty() && table.blocks().is_empty());
    let used: Vec<usize> = (0..7)
        .map(|_| {
            pool.append_slots(&mut table, 1).unwrap();
            pool.used_blocks()
        })
        .collect();
    assert_eq!(used, [1, 1, 1, 2, 2, 2, 3]);
    assert_eq!((table.len(), pool.free_blocks()), (7, 1));
    pool.release(table);
    assert_eq!((pool.used_blocks(), pool.free_blocks()), (0, 4));
}

#[test]
fn a_slot_is_a_row_of_the_slab() {
    let mut pool = pool(8, 4);
    let (mut a, mut b) = (pool.table(8), pool.table(8));
    pool.append_slots(&mut a, 3).unwrap();
    pool.append_slots(&mut b, 5).unwrap();
    pool.append_slots(&mut a, 3).unwrap();
    assert_eq!((ids(&a), ids(&b)), (vec![0, 3], vec![1, 2]));
    assert_eq!(a.slots(0..6).collect::<Vec<_>>(), [0, 1, 2, 3, 12, 13]);
    assert_eq!(b.slots(3..5).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(a.slots(2..5).len(), 3);
    pool.release(a);
    pool.release(b);
}

#[test]
#[should_panic(expected = "position 3 of a table of 3 tokens")]
fn a_position_without_a_row_is_refused_even_inside_the_last_block() {
    let mut pool = pool(2, 4);
    let mut table = pool.table(3);
    pool.append_slots(&mut table, 3).unwrap();
    table.slot_of(3);
}

#[test]
fn too_few_blocks_take_nothing() {
    let mut pool = pool(3, 2);
    let mut table = pool.table(6);
    pool.append_slots(&mut table, 3).unwrap();
    let error = pool.append_slots(&mut table, 4).unwrap_err();
    assert_eq!(error, OutOfBlocks { needed: 2, free: 1 });
    assert_eq!(
        error.to_string(),
        "2 K/V blocks are needed and 1 are free: wait for a sequence to end, or preempt one"
    );
    assert_eq!((table.len(), pool.used_blocks()), (3, 2));
    pool.append_slots(&mut table, 3).unwrap();
    assert_eq!((table.len(), pool.free_blocks()), (6, 0));
    pool.release(table);
}

#[test]
fn growing_within_the_announced_length_keeps_the_block_list_in_place() {
    let mut pool = pool(64, 16);
    let mut table = pool.table(1000);
    let place = table.blocks().as_ptr();
    for _ in 0..1000 {
        pool.append_slots(&mut table, 1).unwrap();
    }
    assert_eq!(table.blocks().as_ptr(), place);
    pool.release(table);
}

#[test]
fn a_shared_last_block_is_copied_by_the_first_who_writes() {
    let mut pool = pool(4, 4);
    let mut parent = pool.table(8);
    pool.append_slots(&mut parent, 6).unwrap();
    let mut child = pool.share(&parent);
    assert_eq!((pool.used_blocks(), ids(&child)), (2, vec![0, 1]));
    assert_eq!(pool.blocks_to_append(&child, 1), 1);
    assert_eq!(pool.blocks_to_append(&child, 0), 0);

    let copy = pool.append_slots(&mut child, 1).unwrap().unwrap();
    assert_eq!((copy.from.index(), copy.to.index(), copy.rows), (1, 2, 2));
    assert_eq!((ids(&parent), ids(&child)), (vec![0, 1], vec![0, 2]));
    assert_eq!(pool.append_slots(&mut parent, 1), Ok(None), "the parent is alone in its last block now");

    pool.release(parent);
    assert_eq!(pool.used_blocks(), 2);
    pool.release(child);
    assert_eq!(pool.used_blocks(), 0);
}

#[test]
fn whole_shared_blocks_are_never_copied() {
    let mut pool = pool(4, 4);
    let mut parent = pool.table(8);
    pool.append_slots(&mut parent, 7).unwrap();
    let mut child = pool.share_prefix(&parent, 4);
    assert_eq!((child.len(), ids(&child)), (4, vec![0]));
    assert_eq!(pool.append_slots(&mut child, 2), Ok(None));
    assert_eq!((ids(&parent), ids(&child)), (vec![0, 1], vec![0, 2]));
    pool.release(parent);
    pool.release(child);
    assert_eq!(pool.used_blocks(), 0);
}

#[test]
fn a_copy_that_finds_no_free_block_takes_nothing() {
    let mut pool = pool(1, 4);
    let mut parent = pool.table(4);
    pool.append_slots(&mut parent, 2).unwrap();
    let mut child = pool.share(&parent);
    assert_eq!(pool.append_slots(&mut child, 1), Err(OutOfBlocks { needed: 1, free: 0 }));
    pool.release(parent);
    assert_eq!(pool.append_slots(&mut child, 1), Ok(None));
    pool.release(child);
}

fn key(owner: u64, content: u8) -> BlockKey {
    BlockKey { owner, digest: [content; 32] }
}

#[test]
fn a_named_block_is_found_until_its_place_is_needed() {
    let mut pool = pool(4, 2);
    let mut table = pool.table(4);
    pool.append_slots(&mut table, 4).unwrap();
    pool.name(&table, 0, key(1, 7));
    let blocks = table.blocks().to_vec();
    pool.release(table);
    assert_eq!((pool.used_blocks(), pool.free_blocks()), (0, 4));
    assert_eq!((pool.find(&key(1, 7)), pool.find(&key(1, 8))), (Some(blocks[0]), None));
    assert_eq!(pool.idle_among(&blocks), 1);

    // Others take what is really free first.
    let mut other = pool.table(8);
    pool.append_slots(&mut other, 6).unwrap();
    let mut again = pool.table(2);
    pool.resume(&mut again, &blocks[..1], 2);
    assert_eq!((pool.free_blocks(), again.len()), (0, 2));
    assert_eq!(pool.append_slots(&mut again, 1), Err(OutOfBlocks { needed: 1, free: 0 }));
    pool.release(again);
    pool.append_slots(&mut other, 1).unwrap();
    assert_eq!((pool.find(&key(1, 7)), pool.names()), (None, 0));
    pool.release(other);
}

#[test]
fn who_was_idle_for_longest_goes_first_and_use_counts() {
    let mut pool = pool(3, 1);
    let tables: Vec<BlockTable> = (0..3)
        .map(|content| {
            let mut table = pool.table(1);
            pool.append_slots(&mut table, 1).unwrap();
            pool.name(&table, 0, key(0, content));
            table
        })
        .collect();
    tables.into_iter().for_each(|table| pool.release(table));
    let mut used = pool.table(1);
    let first = pool.find(&key(0, 0)).unwrap();
    pool.resume(&mut used, &[first], 1);
    pool.release(used);
    let mut table = pool.table(3);
    let mut known = Vec::new();
    for _ in 0..3 {
        pool.append_slots(&mut table, 1).unwrap();
        known.push((0..3).filter(|&content| pool.find(&key(0, content)).is_some()).collect::<Vec<_>>());
    }
    assert_eq!(known, [vec![0, 2], vec![0], vec![]]);
    pool.release(table);
}

#[test]
fn a_named_tail_is_copied_unless_that_takes_the_last_place() {
    let mut pool = pool(2, 4);
    let mut table = pool.table(8);
    pool.append_slots(&mut table, 3).unwrap();
    pool.name(&table, 0, key(0, 1));
    let copy = pool.append_slots(&mut table, 1).unwrap().unwrap();
    assert_eq!((copy.from.index(), copy.to.index(), copy.rows), (0, 1, 3));
    assert_eq!(pool.find(&key(0, 1)), Some(copy.from));
    pool.release(table);

    let mut table = pool.table(8);
    pool.resume(&mut table, &[copy.from], 3);
    assert_eq!(pool.append_slots(&mut table, 5), Ok(None), "the second block is needed for more than a copy");
    assert_eq!((pool.find(&key(0, 1)), ids(&table)), (None, vec![0, 1]));
    pool.release(table);
}

#[test]
fn a_block_bears_two_names_and_content_keeps_its_place() {
    let mut pool = pool(2, 4);
    let (mut a, mut b) = (pool.table(4), pool.table(4));
    pool.append_slots(&mut a, 4).unwrap();
    pool.append_slots(&mut b, 4).unwrap();
    (1..4).for_each(|content| pool.name(&a, 0, key(0, content)));
    pool.name(&b, 0, key(0, 1));
    assert_eq!([1, 2].map(|content| pool.find(&key(0, content))), [Some(a.blocks()[0]); 2]);
    assert_eq!((pool.find(&key(0, 3)), pool.names()), (None, 2));
    pool.release(a);
    pool.release(b);
}

#[test]
fn an_owners_content_is_forgotten_wherever_it_lies() {
    let mut pool = pool(3, 1);
    let mut table = pool.table(3);
    pool.append_slots(&mut table, 3).unwrap();
    for (index, owner) in [(0, 1), (1, 1), (1, 2), (2, 2)] {
        pool.name(&table, index, key(owner, index as u8));
    }
    let held = pool.share_prefix(&table, 1);
    pool.release(table);
    pool.forget(&HashSet::from([1]));
    assert_eq!(pool.names(), 2);
    let known = |owner, content| pool.find(&key(owner, content)).is_some();
    assert_eq!(
        [0, 1, 2].map(|content| (known(1, content), known(2, content))),
        [(false, false), (false, true), (false, true)]
    );
    assert_eq!((pool.used_blocks(), pool.free_blocks()), (1, 2));
    pool.release(held);
    let mut all = pool.table(3);
    pool.append_slots(&mut all, 3).unwrap();
    assert_eq!(pool.names(), 0);
    pool.release(all);
}

/// One thing that can happen to the tables; an index is taken modulo their number.
#[derive(Debug, Clone)]
enum Op {
    Open,
    Append { table: usize, tokens: usize },
    Share { table: usize, tokens: usize },
    Release { table: usize },
    Name { table: usize, block: usize, owner: u64, rows: usize },
    Resume { name: usize },
    Forget { owner: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Open),
        6 => (any::<usize>(), 0_usize..12).prop_map(|(table, tokens)| Op::Append { table, tokens }),
        2 => (any::<usize>(), 0_usize..40).prop_map(|(table, tokens)| Op::Share { table, tokens }),
        2 => any::<usize>().prop_map(|table| Op::Release { table }),
        4 => (any::<usize>(), 0_usize..8, 0_u64..3, 1_usize..6)
            .prop_map(|(table, block, owner, rows)| Op::Name { table, block, owner, rows }),
        3 => any::<usize>().prop_map(|name| Op::Resume { name }),
        1 => (0_u64..3).prop_map(|owner| Op::Forget { owner }),
    ]
}

/// Real tables over a slab of numbers, each beside the plain list of what it should hold.
struct World {
    pool: BlockPool,
    slab: Vec<u32>,
    tables: Vec<(BlockTable, Vec<u32>)>,
    next: u32,
    /// What was named, and the rows that the name stands for.
    named: HashMap<BlockKey, Vec<u32>>,
}

impl World {
    fn new(num_blocks: u32, block_size: usize) -> Self {
        let slab = vec![u32::MAX; num_blocks as usize * block_size];
        let pool = pool(num_blocks, block_size);
        Self { pool, slab, tables: Vec::new(), next: 0, named: HashMap::new() }
    }

    fn apply(&mut self, op: Op) {
        let pick = |index: usize| index % self.tables.len().max(1);
        match op {
            Op::Open => self.tables.push((self.pool.table(0), Vec::new())),
            Op::Forget { owner } => {
                self.pool.forget(&HashSet::from([owner]));
                self.named.retain(|key, _| key.owner != owner);
                assert!(self.named.keys().all(|key| key.owner != owner || self.pool.find(key).is_none()));
            }
            Op::Resume { name } => self.resume(name),
            _ if self.tables.is_empty() => {}
            Op::Append { table, tokens } => self.append(pick(table), tokens),
            Op::Share { table, tokens } => {
                let (source, content) = &self.tables[pick(table)];
                let kept = content[..tokens.min(content.len())].to_vec();
                self.tables.push((self.pool.share_prefix(source, tokens), kept));
            }
            Op::Release { table } => {
                let (table, _) = self.tables.swap_remove(pick(table));
                self.pool.release(table);
            }
            Op::Name { table, block, owner, rows } => self.name(pick(table), block, owner, rows),
        }
    }

    /// Names the first rows of a block by what they hold.
    fn name(&mut self, table: usize, block: usize, owner: u64, rows: usize) {
        let size = self.pool.block_size();
        let (table, content) = &self.tables[table];
        let Some(held) = content.get(block * size..) else { return };
        let rows = &held[..rows.min(size).min(held.len())];
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&first.to_le_bytes());
        digest[4..8].copy_from_slice(&last.to_le_bytes());
        let key = BlockKey { owner, digest };
        self.pool.name(table, block, key);
        self.named.insert(key, rows.to_vec());
    }

    /// Goes on from a named block, where it is still known.
    fn resume(&mut self, name: usize) {
        let mut keys: Vec<BlockKey> = self.named.keys().copied().collect();
        keys.sort_by_key(|key| (key.owner, key.digest));
        let Some(key) = keys.get(name % keys.len().max(1)) else { return };
        let Some(block) = self.pool.find(key) else { return };
        let (free, idle) = (self.pool.free_blocks(), self.pool.idle_among(&[block]));
        let content = self.named[key].clone();
        let mut table = self.pool.table(0);
        self.pool.resume(&mut table, &[block], content.len());
        assert_eq!(self.pool.free_blocks(), free - idle);
        self.tables.push((table, content));
    }

    fn append(&mut self, index: usize, tokens: usize) {
        let size = self.pool.block_size();
        let (table, content) = &mut self.tables[index];
        let needed = self.pool.blocks_to_append(table, tokens);
        let free = self.pool.free_blocks();
        match self.pool.append_slots(table, tokens) {
            Err(error) => {
                assert_eq!(error, OutOfBlocks { needed, free });
                assert!(needed > free);
            }
            Ok(copy) => {
                assert_eq!(self.pool.free_blocks(), free - needed);
                if let Some(BlockCopy { from, to, rows }) = copy {
                    let from = from.index() * size;
                    self.slab.copy_within(from..from + rows, to.index() * size);
                }
                for slot in table.slots(content.len()..content.len() + tokens) {
                    self.slab[slot] = self.next;
                    content.push(self.next);
                    self.next += 1;
                }
            }
        }
    }

    fn check(&self) {
        let mut held = HashSet::new();
        for (table, content) in &self.tables {
            let read: Vec<u32> = table.slots(0..table.len()).map(|slot| self.slab[slot]).collect();
            assert_eq!(&read, content, "a table reads back what was written through it");
            assert_eq!(table.blocks().len(), self.pool.blocks_needed(content.len()));
            let own: HashSet<_> = table.blocks().iter().copied().collect();
            assert_eq!(own.len(), table.blocks().len(), "a table holds a block once");
            held.extend(own);
        }
        for (key, content) in &self.named {
            let Some(block) = self.pool.find(key) else { continue };
            let at = block.index() * self.pool.block_size();
            assert_eq!(&self.slab[at..at + content.len()], content, "a name keeps its rows");
        }
        assert_eq!(self.pool.used_blocks(), held.len());
        assert_eq!(self.pool.free_blocks() + held.len(), self.pool.num_blocks());
    }
}

proptest! {
    #[test]
    fn tables_keep_their_contents_and_the_counts_are_exact(
        num_blocks in 0_u32..24,
        block_size in 1_usize..6,
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut world = World::new(num_blocks, block_size);
        for op in ops {
            world.apply(op);
            world.check();
        }
        for (table, _) in std::mem::take(&mut world.tables) {
            world.pool.release(table);
        }
        prop_assert_eq!(world.pool.free_blocks(), num_blocks as usize);
    }
}
