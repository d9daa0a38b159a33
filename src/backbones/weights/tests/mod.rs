mod blocks;
mod compressed;
mod files;
mod ggufs;
mod golden;
mod vocabulary;

use std::{fs, path::Path};

use safetensors::{Dtype, tensor::TensorView};

use super::*;

/// A tensor to be written: name, dtype, shape, bytes.
type Raw = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn safetensors_bytes(tensors: &[Raw]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn write_model(folder: &Path, tensors: &[Raw]) {
    fs::write(folder.join("model.safetensors"), safetensors_bytes(tensors)).unwrap();
}

fn open_error(path: &Path) -> String {
    Weights::open(path).unwrap_err().to_string()
}
