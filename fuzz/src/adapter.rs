//! The part of the server's `adapter` module that turns bytes into adapters.

#[path = "../../src/adapter/archive/mod.rs"]
pub mod archive;
#[path = "../../src/adapter/assemble.rs"]
pub mod assemble;
#[path = "../../src/adapter/card.rs"]
pub mod card;
#[path = "../../src/adapter/folder.rs"]
pub mod folder;
#[path = "../../src/adapter/generation.rs"]
pub mod generation;
#[path = "../../src/adapter/manifest/mod.rs"]
pub mod manifest;
#[path = "../../src/adapter/pickle/mod.rs"]
mod pickle;
#[path = "../../src/adapter/safetensors.rs"]
pub mod safetensors;
#[path = "../../src/adapter/template.rs"]
pub mod template;
#[path = "../../src/adapter/tensor.rs"]
pub mod tensor;
#[path = "../../src/adapter/tensor_file.rs"]
pub mod tensor_file;
#[path = "../../src/adapter/torch_bin.rs"]
pub mod torch_bin;
#[path = "../../src/adapter/version.rs"]
pub mod version;
#[path = "../../src/adapter/weights.rs"]
pub mod weights;

pub use card::Card;
pub use folder::LoadedAdapter;
pub use manifest::Manifest;
