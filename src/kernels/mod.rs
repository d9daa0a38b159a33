//! The compute kernels, a folder each: checks and custom op in `mod.rs`, the plain truth in `reference.rs`.
//!
//! All unsafe code of the crate lives here, but for the memory map of weights and a question to the allocator (`telemetry`). The plain
//! versions that the others are held to have none: the compiler sees to it.
#![expect(unsafe_code, reason = "vectors, tiles, devices, and threads that write parts of one matrix")]

pub mod best;
mod contiguous;
pub mod cross_entropy;
#[cfg(any(test, feature = "cuda"))]
mod cuda;
pub mod dept_embed;
mod floats;
#[cfg(test)]
mod gradients;
pub mod heap;
mod indices;
pub mod linear;
pub mod matmul;
#[cfg(test)]
mod miri;
pub mod norm;
mod place;
pub mod pool;
pub mod ragged_attention;
pub mod rope;
mod simd;
pub mod soft_cap;

pub use indices::RowIndices;
pub use place::{CardError, DensePlace, Place};
