//! A model's stored weights, by Hugging Face names: safetensors folders and GGUF files.
//!
//! Files are mapped, not read: a tensor costs memory when it is asked for. Shapes are the caller's claim
//! and the file must agree exactly.

mod blocks;
mod error;
mod folder;
mod format;
mod gguf;
mod gguf_names;
mod mapped;
mod matrices;
mod metadata;
mod quantization;
mod vocabulary;

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use candle_core::quantized::GgmlDType;
use sha2::{Digest, Sha256};

pub use blocks::{RawBytes, RawNibbles};
pub use error::WeightsError;
pub(crate) use folder::{INDEX, SINGLE, plain_shard_names, shard_names};
pub use format::{Floats, Format};
use mapped::MappedFile;
pub(crate) use mapped::map_file;
pub use matrices::MatrixRows;
pub use metadata::{Metadata, Value};
use quantization::Quantization;

use super::digest::hex;
use crate::kernels::dept_embed::RowFormat;

#[cfg(test)]
mod tests;

/// A dense layer's weights, row-major `(n, k)`: `n` outputs, `k` inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum RawLinear {
    /// Plain floats, `n * k`.
    Floats(Floats),
    /// Floats that the file holds in a GGML block format, widened: few bits each, blocks of at least 16 with a scale.
    Blocks {
        /// `n * k` values.
        values: Vec<f32>,
    },
    /// Symmetric signed bytes, one scale an output row.
    I8 {
        /// `n * k` values.
        values: Vec<i8>,
        /// `n` scales: weight = value * scale.
        scales: Vec<f32>,
        /// Bits that the layer's input is rounded to at run time: 8 or 15.
        activation_bits: u8,
    },
}

/// A table's rows, row-major `(n, d)`.
#[derive(Debug, Clone, PartialEq)]
pub enum RawEmbedding {
    /// Plain floats, `n * d`.
    Floats(Floats),
    /// Floats that the file holds in a GGML block format, widened.
    Blocks {
        /// `n * d` values.
        values: Vec<f32>,
    },
    /// Symmetric signed bytes, one scale a row.
    I8 {
        /// `n * d` values.
        values: Vec<i8>,
        /// `n` scales: weight = value * scale.
        scales: Vec<f32>,
    },
}

/// What is known of a stored tensor without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// Its number format.
    pub format: &'a Format,
    /// Its shape, outermost dimension first.
    pub shape: &'a [usize],
    /// Its size in the file.
    pub bytes: usize,
}

/// An open model: its tensors by name, and the configuration that lies with them.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    files: Vec<MappedFile>,
    tensors: Tensors,
    config: Option<serde_json::Value>,
    quantization: Option<Quantization>,
    metadata: Option<Metadata>,
    fingerprint: OnceLock<String>,
}

type Tensors = BTreeMap<String, Entry>;

/// Where a tensor lies. The range is inside the file and as long as format and shape say.
#[derive(Debug)]
struct Entry {
    format: Format,
    shape: Vec<usize>,
    file: usize,
    range: Range<usize>,
}

impl Entry {
    /// The tensor's bytes, or whole rows of them, as the floats that they are stored in.
    fn floats(&self, name: &str, bytes: &[u8], shape: &[usize]) -> Result<Floats, WeightsError> {
        self.format.to_floats(bytes, shape).ok_or_else(|| WeightsError::Dtype {
            tensor: name.to_owned(),
            expected: "F32, F16, BF16 or a GGUF block format",
            found: self.format.name(),
        })
    }
}

impl Weights {
    /// Opens a Hugging Face folder (`model.safetensors`, or `model.safetensors.index.json` with its shards;
    /// `config.json` where present) or a `.gguf` file. Headers are checked; no tensor is read.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        if path.is_dir() { Self::open_folder(path) } else { Self::open_gguf(path) }
    }

    fn open_folder(folder: &Path) -> Result<Self, WeightsError> {
        let (files, tensors) = folder::open(folder)?;
        let config_path = folder.join("config.json");
        let config = if config_path.is_file() { Some(json(&config_path)?) } else { None };
        let quantization = match config.as_ref().and_then(|c| c.get("quantization_config")) {
            Some(section) if !section.is_null() => Some(Quantization::parse(section)?),
            _ => None,
        };
        Ok(Self {
            path: folder.to_owned(),
            files,
            tensors,
            config,
            quantization,
            metadata: None,
            fingerprint: OnceLock::new(),
        })
    }

    fn open_gguf(path: &Path) -> Result<Self, WeightsError> {
        let file = MappedFile::open(path)?;
        if !file.bytes().starts_with(gguf::MAGIC) {
            return Err(WeightsError::NoWeights(path.to_owned()));
        }
        let (metadata, tensors) = gguf::parse(file.bytes())
            .map_err(|reason| WeightsError::Malformed { path: path.to_owned(), reason })?;
        Ok(Self {
            path: path.to_owned(),
            files: vec![file],
            tensors,
            config: None,
            quantization: None,
            metadata: Some(metadata),
            fingerprint: OnceLock::new(),
        })
    }

    /// The folder or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's `config.json`, where there is one.
    pub fn config(&self) -> Option<&serde_json::Value> {
        self.config.as_ref()
    }

    /// The GGUF file's metadata; `None` for a folder.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Every tensor under its name in the file, in order of names.
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.tensors.iter().map(|(name, entry)| TensorInfo {
            name,
            format: &entry.format,
            shape: &entry.shape,
            bytes: entry.range.len(),
        })
    }

    /// Whether the tensor of this Hugging Face name is there (tied or gated variants are told by this).
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// The tensor as `f32`, from F32, F16, BF16 or any GGML block format.
    ///
    /// # Errors
    /// When it is missing, has another shape, or is stored as something that isn't a float.
    pub fn tensor_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        Ok(self.tensor_floats(name, shape)?.widened())
    }

    /// The tensor in the floats that it is stored in; of a GGML block format as `f32`.
    ///
    /// # Errors
    /// As [`Weights::tensor_f32`].
    pub fn tensor_floats(&self, name: &str, shape: &[usize]) -> Result<Floats, WeightsError> {
        let (entry, bytes) = self.shaped(name, shape)?;
        entry.floats(name, bytes, shape)
    }

    /// The table `{module}.weight`, shape `(n, d)`, as the file has it, where it is in a format that a table's rows are read in.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn rows(&self, module: &str, n: usize, d: usize) -> Result<Option<(RowFormat, &[u8])>, WeightsError> {
        let (entry, bytes) = self.shaped(&format!("{module}.weight"), &[n, d])?;
        let whole_blocks = d.is_multiple_of(RowFormat::SPAN);
        Ok(match entry.format {
            Format::Ggml(GgmlDType::Q8_0) => Some((RowFormat::Q8_0, bytes)),
            Format::Ggml(GgmlDType::Q4_0) => Some((RowFormat::Q4_0, bytes)),
            Format::Ggml(GgmlDType::Q4_1) => Some((RowFormat::Q4_1, bytes)),
            Format::F16 if whole_blocks => Some((RowFormat::F16, bytes)),
            Format::Bf16 if whole_blocks => Some((RowFormat::Bf16, bytes)),
            // f32 and bytes have tables of their own; K-quants have blocks of 256, other blocks are rare.
            _ => None,
        })
    }

    /// SHA-256 of the weights in hexadecimal: the file's own digest, or for shards the digest of their
    /// digests in order of file names. Reads every byte on the first call and remembers.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let mut digests = self.files.iter().map(MappedFile::digest);
            match (digests.next(), digests.len()) {
                (Some(only), 0) => hex(&only),
                (first, _) => {
                    let mut whole = Sha256::new();
                    first.into_iter().chain(digests).for_each(|digest| whole.update(digest));
                    hex(&whole.finalize())
                }
            }
        })
    }

    /// Lets go of the files' pages that were read: a model that is packed does not need its files in memory beside.
    pub fn release(&self) {
        self.files.iter().for_each(MappedFile::release_all);
    }

    fn shaped(&self, name: &str, shape: &[usize]) -> Result<(&Entry, &[u8]), WeightsError> {
        let entry = self.find(name)?;
        if entry.shape != shape {
            return Err(WeightsError::Shape {
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        Ok((entry, &self.files[entry.file].bytes()[entry.range.clone()]))
    }

    fn find(&self, name: &str) -> Result<&Entry, WeightsError> {
        let missing = |tensor: String| WeightsError::Missing { tensor, path: self.path.clone() };
        let stored = match &self.metadata {
            None => name.to_owned(),
            Some(metadata) => gguf_names::stored_name(metadata.architecture(), name, |gated| {
                self.tensors.contains_key(gated)
            })
            .ok_or_else(|| missing(name.to_owned()))?,
        };
        self.tensors.get(&stored).ok_or_else(|| missing(stored))
    }
}

/// Reads a JSON file.
fn json(path: &Path) -> Result<serde_json::Value, WeightsError> {
    let text = std::fs::read(path).map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|e| WeightsError::Malformed { path: path.to_owned(), reason: format!("not JSON: {e}") })
}
