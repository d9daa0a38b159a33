//! The building blocks that backbones share: a few large ops each, on packed rows `(rows, hidden)`.

mod attention;
mod decoder_block;
mod loader;
mod mlp;

pub use attention::{CrossAttention, SelfAttention};
pub use decoder_block::{CausalAttention, DecoderBlock, Rotary, RowPlaces};
pub use loader::{LoadError, Loader, NormKind, Part, Recipe, Stored};
pub use mlp::{Mlp, MlpShape};
