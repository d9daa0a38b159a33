use std::{collections::HashSet, num::NonZeroUsize};

use super::{
    BlockId, BlockTable,
    known::{BlockKey, KnownBlocks},
};

/// Too few free blocks for a request: nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{needed} K/V blocks are needed and {free} are free: wait for a sequence to end, or preempt one")]
pub struct OutOfBlocks {
    /// Blocks that the request takes.
    pub needed: usize,
    /// Blocks that nobody holds.
    pub free: usize,
}

/// K/V rows to copy before the next write: the last block of a table was shared and got a place of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "without the copy the table's last block is garbage"]
pub struct BlockCopy {
    /// The block that others go on using.
    pub from: BlockId,
    /// The table's own block from now on.
    pub to: BlockId,
    /// How many rows, from the block's start, hold tokens.
    pub rows: usize,
}

/// The blocks of the slab: how many tables hold each, which hold nothing, and what the named ones contain.
///
/// A block with a name ([`BlockPool::name`]) is never written again. Released by its last holder it stays known until its
/// place is needed, longest idle first: a cache that costs nobody a block.
#[derive(Debug)]
pub struct BlockPool {
    /// Tables that hold each block; 0 for a free or an idle one.
    holders: Vec<u32>,
    /// Blocks without content; the last one released is the next one given, while it may still be in a cache.
    free: Vec<BlockId>,
    known: KnownBlocks,
    block_size: NonZeroUsize,
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks of `block_size` tokens.
    pub fn new(num_blocks: u32, block_size: NonZeroUsize) -> Self {
        let free = (0..num_blocks).rev().map(BlockId).collect();
        Self { holders: vec![0; num_blocks as usize], free, known: KnownBlocks::new(num_blocks), block_size }
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size.get()
    }

    /// All blocks, free or not.
    pub fn num_blocks(&self) -> usize {
        self.holders.len()
    }

    /// Blocks that nobody holds, idle ones among them.
    pub fn free_blocks(&self) -> usize {
        self.free.len() + self.known.idle()
    }

    /// Names that blocks bear.
    pub fn names(&self) -> usize {
        self.known.len()
    }

    /// Blocks that some table holds; a shared block counts once.
    pub fn used_blocks(&self) -> usize {
        self.num_blocks() - self.free_blocks()
    }

    /// Blocks that `tokens` tokens of one sequence fill, the last perhaps in part.
    pub fn blocks_needed(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size.get())
    }

    /// A table without tokens, with room for the block list of `max_tokens`, so that growing it up to there
    /// never allocates memory.
    pub fn table(&self, max_tokens: usize) -> BlockTable {
        BlockTable::new(self.block_size, Vec::with_capacity(self.blocks_needed(max_tokens)), 0)
    }

    /// Free blocks that [`append_slots`](Self::append_slots) of `tokens` takes at least: with a copy where others hold the
    /// last block too.
    pub fn blocks_to_append(&self, table: &BlockTable, tokens: usize) -> usize {
        let copied = usize::from(tokens > 0 && self.tail(table).is_some_and(|last| self.is_shared(last)));
        self.blocks_needed(table.len + tokens) - table.blocks.len() + copied
    }

    /// Gives `table` rows for `tokens` more tokens: all of them or none.
    ///
    /// `Some(copy)` tells to copy rows before anything is written to the new ones.
    ///
    /// # Errors
    /// [`OutOfBlocks`] when too few blocks are free; table and pool are as before.
    pub fn append_slots(
        &mut self,
        table: &mut BlockTable,
        tokens: usize,
    ) -> Result<Option<BlockCopy>, OutOfBlocks> {
        let needed = self.blocks_to_append(table, tokens);
        let free = self.free_blocks();
        if needed > free {
            return Err(OutOfBlocks { needed, free });
        }
        let copy = self.tail(table).filter(|_| tokens > 0).and_then(|last| {
            // A named block keeps its rows if there is a place for the copy; who is alone with it may do without.
            let copied = self.is_shared(last) || (self.known.is_named(last) && needed < free);
            copied.then(|| self.own_tail(table, last)).or_else(|| {
                self.known.unname(last);
                None
            })
        });
        while table.blocks.len() < self.blocks_needed(table.len + tokens) {
            let block = self.take();
            table.blocks.push(block);
        }
        table.len += tokens;
        Ok(copy)
    }

    /// A second table over the same tokens and blocks. Either may grow later without the other's notice.
    pub fn share(&mut self, table: &BlockTable) -> BlockTable {
        self.share_prefix(table, table.len)
    }

    /// A second table over the first `tokens` tokens of `table`, or over all where it has fewer.
    pub fn share_prefix(&mut self, table: &BlockTable, tokens: usize) -> BlockTable {
        let mut shared = self.table(0);
        let len = tokens.min(table.len);
        self.resume(&mut shared, &table.blocks[..self.blocks_needed(len)], len);
        shared
    }

    /// Gives the empty `table` blocks that hold its first `tokens` tokens already.
    ///
    /// # Panics
    /// If `table` is not empty, or `blocks` are not what `tokens` fill.
    pub fn resume(&mut self, table: &mut BlockTable, blocks: &[BlockId], tokens: usize) {
        assert!(
            table.blocks.is_empty() && blocks.len() == self.blocks_needed(tokens),
            "{tokens} in {blocks:?}"
        );
        for &block in blocks {
            if self.known.is_idle(block) {
                self.known.wake(block);
            }
            self.holders[block.index()] += 1;
        }
        table.blocks.extend_from_slice(blocks);
        table.len = tokens;
    }

    /// How many of `blocks` count as free: what [`resume`](Self::resume) of them takes.
    pub fn idle_among(&self, blocks: &[BlockId]) -> usize {
        blocks.iter().filter(|&&block| self.known.is_idle(block)).count()
    }

    /// Says that a block that `table` holds contains, from its start, what `key` names. It is not written again.
    pub fn name(&mut self, table: &BlockTable, index: usize, key: BlockKey) {
        self.known.name(table.blocks[index], key);
    }

    /// The block that contains what `key` names.
    pub fn find(&self, key: &BlockKey) -> Option<BlockId> {
        self.known.find(key)
    }

    /// Forgets all content of these owners.
    pub fn forget(&mut self, owners: &HashSet<u64>) {
        let freed = self.known.forget(owners);
        self.free.extend(freed);
    }

    /// Takes a table back; blocks that no other table holds become free.
    pub fn release(&mut self, table: BlockTable) {
        // From the end, so that the table's first block is the next one given, and the last one forgotten.
        for &block in table.blocks.iter().rev() {
            self.let_go(block);
        }
    }

    /// The unfinished last block.
    fn tail(&self, table: &BlockTable) -> Option<BlockId> {
        table.blocks.last().copied().filter(|_| table.partial_rows() > 0)
    }

    fn is_shared(&self, block: BlockId) -> bool {
        self.holders[block.index()] > 1
    }

    /// Replaces the last block of `table` by one of its own.
    fn own_tail(&mut self, table: &mut BlockTable, from: BlockId) -> BlockCopy {
        let to = self.take();
        self.let_go(from);
        let last = table.blocks.len() - 1;
        table.blocks[last] = to;
        BlockCopy { from, to, rows: table.partial_rows() }
    }

    /// A block for one holder.
    fn take(&mut self) -> BlockId {
        let block = self.free.pop().or_else(|| self.known.evict()).expect("free blocks are counted before");
        self.holders[block.index()] = 1;
        block
    }

    fn let_go(&mut self, block: BlockId) {
        let holders = &mut self.holders[block.index()];
        debug_assert!(*holders > 0, "{block:?} is free already: the table is of another pool");
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        if self.known.is_named(block) {
            self.known.rest(block);
        } else {
            self.free.push(block);
        }
    }
}
