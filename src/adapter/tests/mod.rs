mod archive;
mod card;
mod corpus;
mod folder;
mod golden;
#[cfg(unix)]
mod load_root;
mod manifest;
mod never_panics;
mod safetensors;
mod support;
mod torch_bin;
mod version;
mod weights;
