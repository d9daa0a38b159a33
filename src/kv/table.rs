use std::{num::NonZeroUsize, ops::Range};

/// A block of the slab, by its number: rows `id * block_size` up to `(id + 1) * block_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub(super) u32);

impl BlockId {
    /// The block with this number.
    pub fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its place in the slab, in blocks.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The blocks of one sequence, in the order of its tokens.
///
/// Made, grown and taken back by a [`BlockPool`](super::BlockPool). It can't be cloned, and giving it back
/// consumes it: a block is released once for each table that holds it. A table that is dropped instead keeps
/// its blocks out of use, which the pool's `used_blocks` shows.
#[derive(Debug)]
#[must_use = "a table that is not released keeps its blocks"]
pub struct BlockTable {
    pub(super) blocks: Vec<BlockId>,
    pub(super) len: usize,
    block_size: NonZeroUsize,
}

impl BlockTable {
    pub(super) fn new(block_size: NonZeroUsize, blocks: Vec<BlockId>, len: usize) -> Self {
        Self { blocks, len, block_size }
    }

    /// Tokens that have a row.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token has a row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The blocks, in the order of the tokens: what attention walks.
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Rows of the last block that hold tokens; 0 where it is full or there is none.
    pub(super) fn partial_rows(&self) -> usize {
        self.len % self.block_size
    }

    /// The slab's row of the token at `position`.
    ///
    /// # Panics
    /// If `position` is not below [`len`](Self::len).
    pub fn slot_of(&self, position: usize) -> usize {
        assert!(position < self.len, "position {position} of a table of {} tokens", self.len);
        let block = self.blocks[position / self.block_size];
        block.index() * self.block_size.get() + position % self.block_size
    }

    /// The slab's rows of the tokens at `positions`, in order.
    ///
    /// # Panics
    /// On reaching a position that is not below [`len`](Self::len).
    pub fn slots(&self, positions: Range<usize>) -> impl ExactSizeIterator<Item = usize> + '_ {
        positions.map(|position| self.slot_of(position))
    }
}
