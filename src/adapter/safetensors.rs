//! Tensors from a `.safetensors` file.

use std::collections::BTreeMap;

use ::safetensors::{Dtype as FileDtype, SafeTensorError, SafeTensors, tensor::Metadata};

use super::tensor_file::{Dtype, TensorInfo};

/// Most bytes of the JSON header: an adapter has a handful of tensors.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Bytes of the header's length at the start of the file.
const LENGTH_BYTES: usize = 8;

/// Why a `.safetensors` file is refused.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// The stored length of the header is beyond anything an adapter has.
    #[error(
        "not a safetensors file, or damaged: its header claims {0} bytes, at most {MAX_HEADER_BYTES} are read"
    )]
    Header(u64),
    /// Header and data do not agree.
    #[error("not a safetensors file, or damaged or cut short: {0}")]
    Damaged(#[from] SafeTensorError),
    /// No tensor of that name.
    #[error("there is no tensor '{0}' in it")]
    Unknown(String),
    /// Not a float type that is read.
    #[error("tensor '{tensor}': expected dtype f32, f16, bf16 or f64, found {found}")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its type in the file.
        found: String,
    },
}

/// A checked safetensors file in memory.
pub struct Safetensors {
    bytes: Vec<u8>,
    data_start: usize,
    metadata: Metadata,
    infos: BTreeMap<String, TensorInfo>,
}

impl Safetensors {
    /// Checks the header against the file's length.
    ///
    /// # Errors
    /// When the file is damaged or none of this format.
    pub fn open(bytes: Vec<u8>) -> Result<Self, SafetensorsError> {
        if let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() {
            let length = u64::from_le_bytes(*length);
            if length > MAX_HEADER_BYTES {
                return Err(SafetensorsError::Header(length));
            }
        }
        let (header, metadata) = SafeTensors::read_metadata(&bytes)?;
        let infos = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| (name, TensorInfo { dtype: dtype(info.dtype), shape: info.shape.clone() }))
            .collect();
        Ok(Self { data_start: LENGTH_BYTES + header, bytes, metadata, infos })
    }

    /// Every tensor in it by name.
    pub fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    /// The values of one tensor, row-major.
    ///
    /// # Errors
    /// When there is none of that name, or its type is not a float that is read.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, SafetensorsError> {
        let unknown = || SafetensorsError::Unknown(name.to_owned());
        let dtype = &self.infos.get(name).ok_or_else(unknown)?.dtype;
        let Some(size) = dtype.size() else {
            return Err(SafetensorsError::Dtype {
                tensor: name.to_owned(),
                found: dtype.as_str().to_owned(),
            });
        };
        let (start, end) = self.metadata.info(name).ok_or_else(unknown)?.data_offsets;
        let data = &self.bytes[self.data_start + start..self.data_start + end];
        Ok(data.chunks_exact(size).map(|element| dtype.decode(element)).collect())
    }
}

fn dtype(found: FileDtype) -> Dtype {
    match found {
        FileDtype::F32 => Dtype::F32,
        FileDtype::F16 => Dtype::F16,
        FileDtype::BF16 => Dtype::Bf16,
        FileDtype::F64 => Dtype::F64,
        other => Dtype::Other(other.to_string()),
    }
}
