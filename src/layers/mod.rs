//! The building blocks that backbones share: a few large ops each, on packed rows `(rows, hidden)`.

mod attention;
mod decoder_block;
mod loader;
mod mlp;
mod packed_file;
mod packed_parts;
mod recipe;
mod residual;
mod stored;
mod tables;

pub use attention::{CrossAttention, SelfAttention};
pub use decoder_block::{CausalAttention, DecoderBlock, Rotary, RowPlaces};
pub use loader::{LoadError, Loader, NormKind, Part};
pub use mlp::{Mlp, MlpShape};
pub use packed_file::{PackedFile, PackedFileError};
pub use packed_parts::{PackedPart, PackedParts, TableRows};
pub use recipe::Recipe;
pub use stored::Stored;
