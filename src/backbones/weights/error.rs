use std::path::PathBuf;

/// Why a model's weights can't be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file can't be opened or read.
    #[error("can't read '{}': {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path holds neither safetensors files nor a GGUF file.
    #[error(
        "no weights in '{}': expected a folder with model.safetensors or model.safetensors.index.json, or a .gguf file",
        .0.display()
    )]
    NoWeights(PathBuf),
    /// A file is not what its name says.
    #[error("'{}' is damaged or not a model file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The index names a shard that leaves the model's folder.
    #[error(
        "'{}' names the shard '{shard}', which isn't a plain file name: shards must lie beside the index",
        index.display()
    )]
    ShardOutside {
        /// The index file.
        index: PathBuf,
        /// The name it holds.
        shard: String,
    },
    /// The index names a shard that isn't there.
    #[error(
        "'{}' names the shard '{shard}', which is missing: fetch the whole model again",
        index.display()
    )]
    ShardMissing {
        /// The index file.
        index: PathBuf,
        /// The name it holds.
        shard: String,
    },
    /// Two shards hold the same tensor.
    #[error("the tensor '{tensor}' is in '{}' and in '{}'", first.display(), second.display())]
    Duplicate {
        /// The tensor.
        tensor: String,
        /// A file that holds it.
        first: PathBuf,
        /// Another file that holds it.
        second: PathBuf,
    },
    /// A tensor that the architecture needs isn't there.
    #[error("the tensor '{tensor}' is missing from '{}'", path.display())]
    Missing {
        /// The tensor, as the file would name it.
        tensor: String,
        /// The model's folder or file.
        path: PathBuf,
    },
    /// A tensor has another shape than the configuration says.
    #[error("the tensor '{tensor}' has the shape {found:?}, the model's configuration wants {expected:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape that was asked for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has a number format that can't serve here.
    #[error("the tensor '{tensor}' has the dtype {found}; expected {expected}")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// What would do.
        expected: &'static str,
        /// The dtype in the file.
        found: String,
    },
    /// A quantisation scale is negative, infinite or not a number.
    #[error("the tensor '{tensor}' holds the scale {value} at row {row}; scales are finite and not negative")]
    Scale {
        /// The tensor of scales.
        tensor: String,
        /// The row, from 0.
        row: usize,
        /// The value found.
        value: f32,
    },
    /// `quantization_config` asks for something this server doesn't compute.
    #[error("config.json: quantization_config.{field} is {found}; this server reads {expected}")]
    Quantization {
        /// The field's path below `quantization_config`.
        field: String,
        /// What it says.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// An 8-bit tensor that no group of `quantization_config` describes.
    #[error(
        "the tensor '{0}' is I8, but no group of config.json's quantization_config targets it: its scales and activations are unknown"
    )]
    Untargeted(String),
}
