//! Book-keeping of the K/V blocks: who holds which block. No tensors here.
