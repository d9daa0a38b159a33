//! The building blocks that backbones share: a few large ops each, on packed rows `(rows, hidden)`.

mod attention;
mod loader;
mod mlp;

pub use attention::{CrossAttention, SelfAttention};
pub use loader::{LoadError, Loader, Recipe};
pub use mlp::{Mlp, MlpShape};
