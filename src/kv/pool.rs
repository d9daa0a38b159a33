use std::num::NonZeroUsize;

use super::{BlockId, BlockTable};

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

/// The blocks of the slab: which are free, and how many tables hold each of the others.
#[derive(Debug)]
pub struct BlockPool {
    /// Tables that hold each block; 0 for a free one.
    holders: Vec<u32>,
    /// Free blocks; the last one released is the next one given, while it may still be in a cache.
    free: Vec<BlockId>,
    block_size: NonZeroUsize,
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks of `block_size` tokens.
    pub fn new(num_blocks: u32, block_size: NonZeroUsize) -> Self {
        let free = (0..num_blocks).rev().map(BlockId).collect();
        Self { holders: vec![0; num_blocks as usize], free, block_size }
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size.get()
    }

    /// All blocks, free or not.
    pub fn num_blocks(&self) -> usize {
        self.holders.len()
    }

    /// Blocks that nobody holds.
    pub fn free_blocks(&self) -> usize {
        self.free.len()
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

    /// Free blocks that [`append_slots`](Self::append_slots) of `tokens` would take, a copy of a shared last
    /// block included.
    pub fn blocks_to_append(&self, table: &BlockTable, tokens: usize) -> usize {
        let copied = usize::from(tokens > 0 && self.shared_tail(table).is_some());
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
        if needed > self.free.len() {
            return Err(OutOfBlocks { needed, free: self.free.len() });
        }
        let tail = if tokens > 0 { self.shared_tail(table) } else { None };
        let copy = tail.map(|from| self.own_tail(table, from));
        let added = needed - usize::from(copy.is_some());
        for block in self.free.drain(self.free.len() - added..).rev() {
            self.holders[block.index()] = 1;
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
        let len = tokens.min(table.len);
        let blocks = table.blocks[..self.blocks_needed(len)].to_vec();
        for block in &blocks {
            self.holders[block.index()] += 1;
        }
        BlockTable::new(self.block_size, blocks, len)
    }

    /// Takes a table back; blocks that no other table holds become free.
    pub fn release(&mut self, table: BlockTable) {
        // From the end, so that the table's first block is the next one given.
        for &block in table.blocks.iter().rev() {
            self.let_go(block);
        }
    }

    /// The unfinished last block, where others hold it too: a write there needs a copy.
    fn shared_tail(&self, table: &BlockTable) -> Option<BlockId> {
        let last = *table.blocks.last().filter(|_| table.partial_rows() > 0)?;
        (self.holders[last.index()] > 1).then_some(last)
    }

    /// Replaces the shared last block of `table` by one of its own.
    fn own_tail(&mut self, table: &mut BlockTable, from: BlockId) -> BlockCopy {
        let to = self.free.pop().expect("the copy is counted in blocks_to_append");
        self.holders[to.index()] = 1;
        self.let_go(from);
        let last = table.blocks.len() - 1;
        table.blocks[last] = to;
        BlockCopy { from, to, rows: table.partial_rows() }
    }

    fn let_go(&mut self, block: BlockId) {
        let holders = &mut self.holders[block.index()];
        debug_assert!(*holders > 0, "{block:?} is free already: the table is of another pool");
        *holders -= 1;
        if *holders == 0 {
            self.free.push(block);
        }
    }
}
