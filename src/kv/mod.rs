//! Book-keeping of the K/V blocks: who holds which block. No tensors here.
//!
//! The K/V cache is one slab of `num_blocks * block_size` rows. A sequence writes the K/V of its tokens in
//! order into the blocks of its [`BlockTable`]; a table only grows at its end, so tables that share a prefix
//! can share blocks, and only the last, unfinished block ever needs a copy before it is written. A block whose
//! content has a name can be found again by it, also when its last table is gone.

mod known;
mod pool;
mod table;

pub use known::BlockKey;
pub use pool::{BlockCopy, BlockPool, OutOfBlocks};
pub use table::{BlockId, BlockTable};

#[cfg(test)]
mod tests;
