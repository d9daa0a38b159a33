//! The compute kernels, a folder each: checks and custom op in `mod.rs`, the plain truth in `reference.rs`.
//!
//! All unsafe code of the crate but the memory map of weights lives here.

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
pub mod norm;
mod place;
pub mod pool;
pub mod ragged_attention;
pub mod rope;
mod simd;
pub mod soft_cap;

pub use indices::RowIndices;
pub use place::{CardError, DensePlace, Place};
