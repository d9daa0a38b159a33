//! A file of named tensors, whichever of the two formats it has. Nothing is decoded before it is asked for.

use std::collections::BTreeMap;

use super::{
    safetensors::{Safetensors, SafetensorsError},
    torch_bin::{TorchBin, TorchError},
};

/// Most bytes of a weights file.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// The element type of a stored tensor, as the file calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit float; rounded to f32 when read.
    F64,
    /// Something that no adapter tensor is made of, by its name in the file.
    Other(String),
}

impl Dtype {
    /// Bytes an element takes; none for types that are not read.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::F32 => Some(4),
            Self::F16 | Self::Bf16 => Some(2),
            Self::F64 => Some(8),
            Self::Other(_) => None,
        }
    }

    /// The name on screen.
    pub fn as_str(&self) -> &str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::Other(name) => name,
        }
    }

    /// The value of one little-endian element; `bytes` has [`size`](Self::size) bytes.
    pub(super) fn decode(&self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
            (Self::Bf16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
            (Self::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            // Unreachable by the readers, which check the size first; NaN is then refused like any other NaN.
            _ => f32::NAN,
        }
    }
}

/// What a file says of a tensor before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Number of elements; none when it does not fit a usize.
    pub fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim))
    }

    /// Whether a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }
}

/// Why a tensor could not be read from its file.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// From a `.safetensors` file.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// From a torch `.bin` file.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// The two formats of adapter weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsFormat {
    /// `adapter_model.safetensors`
    Safetensors,
    /// `adapter_model.bin`: the zip that `torch.save` writes.
    TorchBin,
}

impl WeightsFormat {
    /// The name of the file in an adapter's folder.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Safetensors => "adapter_model.safetensors",
            Self::TorchBin => "adapter_model.bin",
        }
    }
}

/// An opened weights file.
pub enum TensorFile {
    /// A safetensors file.
    Safetensors(Safetensors),
    /// A torch zip.
    Torch(TorchBin),
}

impl TensorFile {
    /// Checks the file's directory of tensors.
    ///
    /// # Errors
    /// When the bytes are not a whole file of that format.
    pub fn open(format: WeightsFormat, bytes: Vec<u8>) -> Result<Self, TensorFileError> {
        Ok(match format {
            WeightsFormat::Safetensors => Self::Safetensors(Safetensors::open(bytes)?),
            WeightsFormat::TorchBin => Self::Torch(TorchBin::open(bytes)?),
        })
    }

    /// The format it has.
    pub fn format(&self) -> WeightsFormat {
        match self {
            Self::Safetensors(_) => WeightsFormat::Safetensors,
            Self::Torch(_) => WeightsFormat::TorchBin,
        }
    }

    /// Every tensor in it by name.
    pub fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        match self {
            Self::Safetensors(file) => file.infos(),
            Self::Torch(file) => file.infos(),
        }
    }

    /// The values of one tensor, row-major.
    ///
    /// # Errors
    /// When there is none of that name, its type is not a float, or the file is damaged.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>, TensorFileError> {
        Ok(match self {
            Self::Safetensors(file) => file.read(name)?,
            Self::Torch(file) => file.read(name)?,
        })
    }
}
