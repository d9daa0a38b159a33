//! The opcodes that make torch's objects, here descriptions of them.

use std::collections::BTreeMap;

use super::{
    PickleError, TensorView,
    machine::{Item, Machine},
    shortened,
};
use crate::adapter::tensor_file::Dtype;

/// Most dimensions of a tensor.
const MAX_DIMS: usize = 8;
/// Longest name of a storage in the archive; torch numbers them.
const MAX_KEY_BYTES: usize = 20;

/// The importable names that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// A storage class; the number is its place in [`STORAGES`].
    Storage(usize),
}

const STORAGES: [(&str, Option<Dtype>); 12] = [
    ("FloatStorage", Some(Dtype::F32)),
    ("HalfStorage", Some(Dtype::F16)),
    ("BFloat16Storage", Some(Dtype::Bf16)),
    ("DoubleStorage", Some(Dtype::F64)),
    ("LongStorage", None),
    ("IntStorage", None),
    ("ShortStorage", None),
    ("CharStorage", None),
    ("ByteStorage", None),
    ("BoolStorage", None),
    ("ComplexFloatStorage", None),
    ("ComplexDoubleStorage", None),
];

/// A named run of elements in the archive.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    key: String,
    dtype: Dtype,
    len: usize,
}

impl Machine<'_> {
    /// Pushes one of the known names.
    pub(super) fn global(&mut self) -> Result<(), PickleError> {
        let (module, name) = (self.line()?, self.line()?);
        let storage = STORAGES.iter().position(|(storage, _)| *storage == name);
        let known = match (module, name, storage) {
            ("collections", "OrderedDict", _) => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2", _) => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter", _) => Global::RebuildParameter,
            ("torch", _, Some(index)) => Global::Storage(index),
            _ => return Err(PickleError::Global(readable(module, name))),
        };
        self.stack.push(Item::Global(known));
        Ok(())
    }

    /// `("storage", class, key, location, length)`
    pub(super) fn storage(&mut self) -> Result<(), PickleError> {
        let id = self.pop_tuple()?;
        let &[Item::Text(tag), Item::Global(Global::Storage(class)), Item::Text(key), Item::Text(_), len] =
            id.as_slice()
        else {
            return Err(PickleError::Damaged("a storage is not described as torch describes it"));
        };
        if self.texts[tag] != "storage" {
            return Err(PickleError::Damaged("a persistent object is no storage"));
        }
        // The key becomes a path within the archive, and each tensor copies it: it must be a plain number.
        let key = self.texts[key];
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_digit()) {
            return Err(PickleError::Damaged("a storage is not named by a number"));
        }
        let (name, dtype) = &STORAGES[class];
        let dtype = dtype.clone().unwrap_or_else(|| Dtype::Other(format!("torch.{name}")));
        self.storages.push(Storage { key: key.to_owned(), dtype, len: size(len)? });
        self.stack.push(Item::Storage(self.storages.len() - 1));
        Ok(())
    }

    pub(super) fn reduce(&mut self) -> Result<(), PickleError> {
        let args = self.pop_tuple()?;
        match self.pop()? {
            Item::Global(Global::OrderedDict) if args.is_empty() => self.push_dict(),
            Item::Global(Global::RebuildTensor) => self.rebuild_tensor(&args)?,
            Item::Global(Global::RebuildParameter) => match args.as_slice() {
                [tensor @ Item::Tensor(_), _, _] => self.stack.push(*tensor),
                _ => return Err(PickleError::Damaged("a parameter holds no tensor")),
            },
            _ => return Err(PickleError::Damaged("it calls what makes no tensor")),
        }
        Ok(())
    }

    /// `(storage, offset, shape, stride, requires_grad, hooks)`, in newer files with metadata behind.
    fn rebuild_tensor(&mut self, args: &[Item]) -> Result<(), PickleError> {
        let &[Item::Storage(storage), offset, Item::Tuple(shape), Item::Tuple(stride), ref rest @ ..] = args
        else {
            return Err(PickleError::Damaged("a tensor is not described as torch describes it"));
        };
        if !(2..=3).contains(&rest.len()) {
            return Err(PickleError::Damaged("a tensor is described with too many or too few parts"));
        }
        let (shape, stride) = (self.sizes(shape)?, self.sizes(stride)?);
        if shape.len() != stride.len() {
            return Err(PickleError::Damaged("a tensor's strides and dimensions differ in number"));
        }
        let Storage { key, dtype, len } = self.storages[storage].clone();
        let offset = size(offset)?;
        self.tensors.push(TensorView { key, dtype, storage_len: len, offset, shape, stride });
        self.stack.push(Item::Tensor(self.tensors.len() - 1));
        Ok(())
    }

    fn sizes(&self, tuple: usize) -> Result<Vec<usize>, PickleError> {
        let items = &self.tuples[tuple];
        if items.len() > MAX_DIMS {
            return Err(PickleError::Damaged("a tensor has more than 8 dimensions"));
        }
        items.iter().map(|&item| size(item)).collect()
    }

    /// `state_dict()` hangs its `_metadata` on the dictionary; nothing in it matters here.
    pub(super) fn build(&mut self) -> Result<(), PickleError> {
        match (self.pop()?, self.stack.last()) {
            (Item::Dict(_), Some(Item::Dict(_))) => Ok(()),
            _ => Err(PickleError::Damaged("it sets the state of what is no dictionary")),
        }
    }

    pub(super) fn dictionary_of_tensors(
        &self,
        result: Item,
    ) -> Result<BTreeMap<String, TensorView>, PickleError> {
        let Item::Dict(index) = result else {
            return Err(PickleError::Damaged("it holds no dictionary of tensors"));
        };
        let mut tensors = BTreeMap::new();
        for &(key, value) in &self.dicts[index] {
            let Item::Text(name) = key else {
                return Err(PickleError::Damaged("a dictionary key is no string"));
            };
            let name = self.texts[name];
            let Item::Tensor(tensor) = value else {
                return Err(PickleError::NotTensor { name: shortened(name), found: value.kind() });
            };
            if tensors.insert(name.to_owned(), self.tensors[tensor].clone()).is_some() {
                return Err(PickleError::Twice(shortened(name)));
            }
        }
        Ok(tensors)
    }
}

/// A non-negative number as a size.
fn size(item: Item) -> Result<usize, PickleError> {
    match item {
        Item::Int(value) => usize::try_from(value).map_err(|_| PickleError::Damaged("a size is negative")),
        _ => Err(PickleError::Damaged("a size is no number")),
    }
}

fn readable(module: &str, name: &str) -> String {
    shortened(&format!("{module}.{name}"))
}
