//! Adapters: what they are on disk, in memory and by name.
//!
//! An adapter folder holds `adapter_config.json`, `adapter_model.safetensors` (or `.bin`) and maybe a
//! `card.toml`. [`folder::load`] reads and checks all of it once; what comes out ([`Manifest`],
//! [`AdapterWeights`], [`Card`]) is trusted from then on. A [`Generation`] adds name and content address,
//! and the [`Registry`] leases generations to requests.

pub mod archive;
pub mod assemble;
pub mod canonical;
pub mod card;
pub mod folder;
pub mod generation;
pub mod manifest;
mod pickle;
pub mod registry;
pub mod safetensors;
pub mod template;
pub mod tensor;
pub mod tensor_file;
pub mod torch_bin;
pub mod version;
pub mod weights;

pub use card::Card;
pub use folder::LoadedAdapter;
pub use generation::{AdapterLease, Generation};
pub use manifest::{Manifest, Method, Task};
pub use registry::{BackboneShape, Registry, RegistryError};
pub use tensor::Matrix;
pub use weights::{AdapterWeights, Adept, LowRank, Update};

#[cfg(test)]
mod tests;
