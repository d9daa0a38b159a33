//! Adapters made on the spot: configs, safetensors files, and torch zips with hand-written pickles.

use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
    path::Path,
};

use ::safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::super::{
    assemble::{ADEPT_BIAS_A, ADEPT_BIAS_B, LOW_RANK_A, LOW_RANK_B, PROMPT},
    folder::{AdapterBytes, FolderError, LoadedAdapter},
    tensor_file::WeightsFormat,
};

/// The small DePT adapter of most tests: m = 2, r = 3, s = 5, d = 4.
pub fn config() -> Value {
    json!({
        "peft_type": "PROMPT_TUNING_LORA", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 2, "r": 3,
        "lora_alpha": 8, "max_length": 5, "token_dim": 4, "num_transformer_submodules": 1,
        "base_model_name_or_path": "tiny", "bias": "none", "revision": null,
    })
}

/// The config with other values in some fields; null removes one.
pub fn config_with(changes: Value) -> Value {
    let mut config = config();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => config.as_object_mut().unwrap().remove(key),
            value => config.as_object_mut().unwrap().insert(key.clone(), value.clone()),
        };
    }
    config
}

/// A tensor as shape and values.
#[derive(Clone)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A tensor whose values count up in steps that f16 and bf16 hold exactly.
pub fn counting(shape: &[usize], from: f32) -> Tensor {
    let len = shape.iter().product::<usize>();
    Tensor { shape: shape.to_vec(), values: (0..len).map(|i| from + i as f32).collect() }
}

pub type Tensors = BTreeMap<String, Tensor>;

/// The tensors of [`config`].
pub fn tensors() -> Tensors {
    tensors_of([
        (PROMPT, counting(&[2, 4], 0.0)),
        (LOW_RANK_A, counting(&[5, 3], 20.0)),
        (LOW_RANK_B, counting(&[3, 4], 40.0)),
    ])
}

/// The tensors of ADePT with m = 2, r = 3, d = 4.
pub fn adept_tensors() -> Tensors {
    tensors_of([
        (PROMPT, counting(&[2, 4], 0.0)),
        (LOW_RANK_A, counting(&[4, 3], 20.0)),
        (LOW_RANK_B, counting(&[3, 4], 40.0)),
        (ADEPT_BIAS_A, counting(&[3], 60.0)),
        (ADEPT_BIAS_B, counting(&[4], 70.0)),
    ])
}

pub fn tensors_of<const N: usize>(tensors: [(&str, Tensor); N]) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

/// The bytes of a value in one of the float types.
pub fn encode(value: f32, dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    }
}

/// A safetensors file.
pub fn safetensors_as(tensors: &Tensors, dtype: Dtype) -> Vec<u8> {
    let data: Vec<(&String, &Tensor, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| (name, tensor, tensor.values.iter().flat_map(|&v| encode(v, dtype)).collect()))
        .collect();
    let views = data
        .iter()
        .map(|(name, tensor, bytes)| (*name, TensorView::new(dtype, tensor.shape.clone(), bytes).unwrap()));
    ::safetensors::serialize(views, None).unwrap()
}

pub fn safetensors(tensors: &Tensors) -> Vec<u8> {
    safetensors_as(tensors, Dtype::F32)
}

/// Writes pickles of protocol 2, one instruction a call.
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn int(self, value: i64) -> Self {
        self.raw(&[0x8a, 8]).raw(&value.to_le_bytes())
    }

    pub fn ints(self, values: &[i64]) -> Self {
        values.iter().fold(self.raw(b"("), |pickle, &value| pickle.int(value)).raw(b"t")
    }

    /// A tensor: a view of storage `key` of `len` elements.
    pub fn tensor(self, class: &str, key: &str, len: i64, view: (i64, &[i64], &[i64])) -> Self {
        let (offset, shape, stride) = view;
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", class)
            .text(key)
            .text("cpu")
            .int(len)
            .raw(b"tQ")
            .int(offset)
            .ints(shape)
            .ints(stride)
            .raw(b"\x89")
            .global("collections", "OrderedDict")
            .raw(b")RtR")
    }
}

/// A zip as torch writes it, of a pickle and its storages.
pub fn torch_zip(pickle: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut files = vec![
        ("archive/data.pkl".to_owned(), pickle.to_vec()),
        ("archive/byteorder".into(), b"little".to_vec()),
    ];
    files.extend(storages.iter().map(|(key, bytes)| (format!("archive/data/{key}"), bytes.clone())));
    zip_of(&files, CompressionMethod::Stored)
}

pub fn zip_of(files: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name.as_str(), SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Row-major strides.
pub fn contiguous(shape: &[usize]) -> (Vec<i64>, Vec<i64>) {
    let dims: Vec<i64> = shape.iter().map(|&dim| dim as i64).collect();
    let strides = (0..dims.len()).map(|at| dims[at + 1..].iter().product()).collect();
    (dims, strides)
}

/// A `.bin` file of f32 tensors.
pub fn torch_bin(tensors: &Tensors) -> Vec<u8> {
    let mut pickle = Pickle::new().raw(b"}(");
    let mut storages = Vec::new();
    let keys: Vec<String> = (0..tensors.len()).map(|key| key.to_string()).collect();
    for ((name, tensor), key) in tensors.iter().zip(&keys) {
        let (shape, stride) = contiguous(&tensor.shape);
        let len = tensor.values.len() as i64;
        pickle = pickle.text(name).tensor("FloatStorage", key, len, (0, &shape, &stride));
        storages.push((key.as_str(), tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
    torch_zip(&pickle.raw(b"u.").0, &storages)
}

pub fn load(config: &Value, tensors: &Tensors) -> Result<LoadedAdapter, FolderError> {
    load_bytes(config, WeightsFormat::Safetensors, safetensors(tensors))
}

pub fn load_bytes(
    config: &Value,
    format: WeightsFormat,
    weights: Vec<u8>,
) -> Result<LoadedAdapter, FolderError> {
    let config = config.to_string().into_bytes();
    LoadedAdapter::from_bytes(AdapterBytes { config, format, weights, card: None }, None)
}

/// Writes an adapter's folder.
pub fn write_folder(folder: &Path, config: &Value, tensors: &Tensors, card: Option<&str>) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), safetensors(tensors)).unwrap();
    if let Some(card) = card {
        std::fs::write(folder.join("card.toml"), card).unwrap();
    }
}

/// The message of an error, checked to hold every one of `parts`.
#[track_caller]
pub fn says<T, E: std::fmt::Display>(result: Result<T, E>, parts: &[&str]) -> String {
    let message = result.err().expect("it should be refused").to_string();
    for part in parts {
        assert!(message.contains(part), "'{message}' does not say '{part}'");
    }
    message
}
