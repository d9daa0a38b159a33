//! The building blocks that backbones share: a few large ops each, on packed rows `(rows, hidden)`.

mod attention;
mod decoder_block;
mod loader;
mod mlp;
mod recipe;
mod residual;
mod stored;
mod tables;

pub use attention::{CrossAttention, SelfAttention};
pub use decoder_block::{CausalAttention, DecoderBlock, Rotary, RowPlaces};
pub use loader::{LoadError, Loader, NormKind, Part};
pub use mlp::{Mlp, MlpShape};
pub use recipe::Recipe;
pub use stored::Stored;
