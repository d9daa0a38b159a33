//! Number formats of stored tensors, and their way to floats.

use candle_core::{
    Device,
    quantized::{GgmlDType, ggml_file::qtensor_from_ggml},
};
use half::{bf16, f16, slice::HalfFloatSliceExt};

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
    /// Signed bytes; their scales are another tensor.
    I8,
    /// A block format of the GGML family, scales inside.
    Ggml(GgmlDType),
    /// Something else, by its name in the file.
    Other(String),
}

/// Numbers of a tensor in the floats that it is stored in.
#[derive(Debug, Clone, PartialEq)]
pub enum Floats {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 16-bit IEEE floats.
    F16(Vec<f16>),
    /// 16-bit brain floats.
    Bf16(Vec<bf16>),
}

impl Floats {
    /// The same numbers in 32 bits.
    pub fn widened(self) -> Vec<f32> {
        match self {
            Self::F32(values) => values,
            Self::F16(values) => values.to_f32_vec(),
            Self::Bf16(values) => values.to_f32_vec(),
        }
    }
}

impl Format {
    /// The name that the file's own world uses.
    pub fn name(&self) -> String {
        match self {
            Self::F32 => "F32".into(),
            Self::F16 => "F16".into(),
            Self::Bf16 => "BF16".into(),
            Self::I8 => "I8".into(),
            Self::Ggml(kind) => ggml_name(*kind).into(),
            Self::Other(name) => name.clone(),
        }
    }

    /// From a safetensors dtype.
    pub(super) fn from_safetensors(dtype: safetensors::Dtype) -> Self {
        match dtype {
            safetensors::Dtype::F32 => Self::F32,
            safetensors::Dtype::F16 => Self::F16,
            safetensors::Dtype::BF16 => Self::Bf16,
            safetensors::Dtype::I8 => Self::I8,
            other => Self::Other(format!("{other:?}")),
        }
    }

    /// From a GGUF type number.
    pub(super) fn from_ggml(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Ggml(GgmlDType::Q4_0),
            3 => Self::Ggml(GgmlDType::Q4_1),
            6 => Self::Ggml(GgmlDType::Q5_0),
            7 => Self::Ggml(GgmlDType::Q5_1),
            8 => Self::Ggml(GgmlDType::Q8_0),
            10 => Self::Ggml(GgmlDType::Q2K),
            11 => Self::Ggml(GgmlDType::Q3K),
            12 => Self::Ggml(GgmlDType::Q4K),
            13 => Self::Ggml(GgmlDType::Q5K),
            14 => Self::Ggml(GgmlDType::Q6K),
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Bytes of a row-major tensor of this shape; `None` where a row doesn't fill whole blocks, the
    /// product overflows, or the format has no fixed size here.
    pub(super) fn bytes(&self, shape: &[usize]) -> Option<usize> {
        let elements = elements(shape)?;
        let (block, size) = match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::I8 => (1, 1),
            Self::Ggml(kind) => (kind.block_size(), kind.type_size()),
            Self::Other(_) => return None,
        };
        let row = shape.last().copied().unwrap_or(1);
        (row % block == 0).then_some(())?;
        (elements / block).checked_mul(size)
    }

    /// The values as the floats that they are stored in, those of blocks as `f32`; `None` where the format needs more than its
    /// bytes. `bytes` is exactly [`Format::bytes`] long and lies at a multiple of 8, or whole rows behind one.
    pub(super) fn to_floats(&self, bytes: &[u8], shape: &[usize]) -> Option<Floats> {
        let pairs = || bytes.as_chunks::<2>().0.iter();
        Some(match self {
            Self::F32 => {
                Floats::F32(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
            }
            Self::F16 => Floats::F16(pairs().map(|b| f16::from_le_bytes(*b)).collect()),
            Self::Bf16 => Floats::Bf16(pairs().map(|b| bf16::from_le_bytes(*b)).collect()),
            Self::Ggml(kind) => {
                let tensor = qtensor_from_ggml(*kind, bytes, shape.to_vec(), &Device::Cpu).ok()?;
                let flat = tensor.dequantize(&Device::Cpu).ok()?.flatten_all().ok()?;
                Floats::F32(flat.to_vec1().ok()?)
            }
            Self::I8 | Self::Other(_) => return None,
        })
    }
}

/// Number of values in a tensor; `None` where the product overflows.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))
}

fn ggml_name(kind: GgmlDType) -> &'static str {
    match kind {
        GgmlDType::F32 => "F32",
        GgmlDType::F16 => "F16",
        GgmlDType::BF16 => "BF16",
        GgmlDType::Q4_0 => "Q4_0",
        GgmlDType::Q4_1 => "Q4_1",
        GgmlDType::Q5_0 => "Q5_0",
        GgmlDType::Q5_1 => "Q5_1",
        GgmlDType::Q8_0 => "Q8_0",
        GgmlDType::Q8_1 => "Q8_1",
        GgmlDType::Q2K => "Q2_K",
        GgmlDType::Q3K => "Q3_K",
        GgmlDType::Q4K => "Q4_K",
        GgmlDType::Q5K => "Q5_K",
        GgmlDType::Q6K => "Q6_K",
        GgmlDType::Q8K => "Q8_K",
    }
}
