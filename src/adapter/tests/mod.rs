#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod card;
mod folder;
mod golden;
mod manifest;
mod never_panics;
mod registry;
mod safetensors;
mod support;
mod torch_bin;
mod version;
mod weights;
