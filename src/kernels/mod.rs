//! The compute kernels, a folder each: checks and custom op in `mod.rs`, the plain truth in `reference.rs`.

pub mod dept_embed;
pub mod linear;
pub mod norm;
pub mod pool;
pub mod ragged_attention;
