//! The few pickle opcodes that `torch.save` of a dictionary of tensors emits, as a reader of data.
//!
//! A pickle is a program for a stack machine that may call any importable function. This machine knows seven
//! names, and calling one builds a description; anything else is refused by name. Values are small and `Copy`:
//! strings, tuples and dictionaries live in flat arenas, so that no nesting can recurse, no loop can leak, and
//! memory stays within a constant of the input's length.

mod machine;
mod torch;

use std::collections::BTreeMap;

use self::machine::Machine;
use super::tensor_file::Dtype;

/// Longest `data.pkl`. One tensor takes about 150 bytes.
pub(super) const MAX_PICKLE_BYTES: usize = 1 << 16;

/// Why a pickle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// Longer than any adapter's.
    #[error("the pickle is longer than {MAX_PICKLE_BYTES} bytes")]
    TooLong,
    /// It ends inside an instruction or before STOP.
    #[error("the pickle is cut short")]
    CutShort,
    /// It has more bytes after STOP.
    #[error("the pickle goes on after its end")]
    Trailing,
    /// It was written with another protocol.
    #[error("the pickle has protocol {0}: save the file again with torch.save's default, pickle_protocol=2")]
    Protocol(u8),
    /// An instruction that plain tensors don't need.
    #[error(
        "refused: the pickle has instruction {code:#04x} at byte {at}, which a dictionary of tensors does not need"
    )]
    Opcode {
        /// The instruction's code.
        code: u8,
        /// Its place.
        at: usize,
    },
    /// It asks for something importable that is not a tensor.
    #[error("refused: the pickle asks for {0}; only tensors are read")]
    Global(String),
    /// The instructions do not add up.
    #[error("the pickle is damaged: {0}")]
    Damaged(&'static str),
    /// An entry of the dictionary is something else.
    #[error("entry '{name}' is not a tensor but {found}: only a flat dictionary of tensors is read")]
    NotTensor {
        /// The entry.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// Two entries of one name.
    #[error("entry '{0}' is there twice")]
    Twice(String),
}

/// Where a tensor's elements lie: a strided view of a storage. All numbers are as the file gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorView {
    /// The storage's name in the archive.
    pub key: String,
    /// The storage's element type.
    pub dtype: Dtype,
    /// The storage's length in elements.
    pub storage_len: usize,
    /// First element.
    pub offset: usize,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Elements from one index to the next, by dimension.
    pub stride: Vec<usize>,
}

/// Runs a pickle and returns the tensors of the dictionary that it describes.
pub(super) fn tensors(pickle: &[u8]) -> Result<BTreeMap<String, TensorView>, PickleError> {
    if pickle.len() > MAX_PICKLE_BYTES {
        return Err(PickleError::TooLong);
    }
    let mut machine = Machine::new(pickle);
    let result = machine.run()?;
    machine.dictionary_of_tensors(result)
}

/// Short and printable: a hostile name must not fill a log or move its cursor.
fn shortened(text: &str) -> String {
    text.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect()
}
