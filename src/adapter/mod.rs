//! Adapters: what they are on disk, in memory and by name.
//!
//! An adapter folder holds `adapter_config.json`, `adapter_model.safetensors` (or `.bin`) and maybe a
//! `card.toml`. [`folder::load`] reads and checks all of it once; what comes out ([`Manifest`],
//! [`AdapterWeights`], [`Card`]) is trusted from then on. A [`Generation`] adds name and content address. The
//! [`Catalogue`] knows every name, finds its files in the store or in a folder, and leases generations to requests; which of
//! them are in memory is [`residency`]'s matter.

pub mod archive;
pub mod assemble;
pub mod backbone;
pub mod canonical;
pub mod card;
pub mod catalogue;
pub mod folder;
pub mod generation;
pub mod load_root;
pub mod manifest;
mod pickle;
pub mod residency;
pub mod safetensors;
pub mod store;
pub mod template;
pub mod tensor;
pub mod tensor_file;
pub mod torch_bin;
pub mod version;
pub mod weights;

pub use backbone::{BackboneShape, MisfitError};
pub use card::Card;
pub use catalogue::{Catalogue, CatalogueConfig, CatalogueError};
pub use folder::LoadedAdapter;
pub use generation::{AdapterLease, Generation};
pub use load_root::{LoadPathError, LoadRoot};
pub use manifest::{Manifest, Method, Task};
pub use tensor::Matrix;
pub use weights::{AdapterWeights, Adept, LowRank, Update};

#[cfg(test)]
mod tests;
