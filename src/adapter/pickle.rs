//! The few pickle opcodes that `torch.save` of a dictionary of tensors emits, as a reader of data.
//!
//! A pickle is a program for a stack machine that may call any importable function. This machine knows seven
//! names, and calling one builds a description; anything else is refused by name. Values are small and `Copy`:
//! strings, tuples and dictionaries live in flat arenas, so that no nesting can recurse, no loop can leak, and
//! memory stays within a constant of the input's length.

use std::collections::{BTreeMap, HashMap};

use super::tensor_file::Dtype;

/// Longest `data.pkl`. One tensor takes about 150 bytes.
pub(super) const MAX_PICKLE_BYTES: usize = 1 << 16;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 8;
/// Longest name of a storage in the archive; torch numbers them.
const MAX_KEY_BYTES: usize = 20;

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

/// The importable names that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Global {
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

/// A value on the stack: small, with the numbers of arena entries in place of contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    None,
    Bool,
    Int(i64),
    Text(usize),
    Tuple(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

impl Item {
    fn kind(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool => "a bool",
            Self::Int(_) => "a number",
            Self::Text(_) => "a string",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a class",
            Self::Storage(_) => "a bare storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// A named run of elements in the archive.
#[derive(Debug, Clone)]
struct Storage {
    key: String,
    dtype: Dtype,
    len: usize,
}

struct Machine<'a> {
    code: &'a [u8],
    at: usize,
    stack: Vec<Item>,
    marks: Vec<usize>,
    memo: HashMap<u32, Item>,
    texts: Vec<&'a str>,
    tuples: Vec<Vec<Item>>,
    dicts: Vec<Vec<(Item, Item)>>,
    storages: Vec<Storage>,
    tensors: Vec<TensorView>,
}

impl<'a> Machine<'a> {
    fn new(code: &'a [u8]) -> Self {
        Self {
            code,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            texts: Vec::new(),
            tuples: Vec::new(),
            dicts: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Executes up to STOP and returns the single value left.
    fn run(&mut self) -> Result<Item, PickleError> {
        loop {
            let at = self.at;
            let [code] = self.bytes::<1>()?;
            match code {
                0x80 => self.protocol()?,
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.stack.push(Item::None),
                0x88 | 0x89 => self.stack.push(Item::Bool),
                b'K' => self.int::<1>(|[a]| i64::from(a))?,
                b'M' => self.int::<2>(|b| i64::from(u16::from_le_bytes(b)))?,
                b'J' => self.int::<4>(|b| i64::from(i32::from_le_bytes(b)))?,
                0x8a => self.long()?,
                b'X' => self.text()?,
                b'c' => self.global()?,
                b')' => self.push_tuple(Vec::new()),
                0x85 => self.short_tuple(1)?,
                0x86 => self.short_tuple(2)?,
                0x87 => self.short_tuple(3)?,
                b't' => self.tuple()?,
                b'}' => self.push_dict(),
                b's' => self.set_item()?,
                b'u' => self.set_items()?,
                b'q' => self.put_short()?,
                b'r' => self.put_long()?,
                b'h' => self.get_short()?,
                b'j' => self.get_long()?,
                b'Q' => self.storage()?,
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                b'.' => return self.stop(),
                _ => return Err(PickleError::Opcode { code, at }),
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(count).ok_or(PickleError::CutShort)?;
        let bytes = self.code.get(self.at..end).ok_or(PickleError::CutShort)?;
        self.at = end;
        Ok(bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        self.take(N)?.first_chunk().copied().ok_or(PickleError::CutShort)
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.code[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').ok_or(PickleError::CutShort)?;
        self.at += end + 1;
        str::from_utf8(&rest[..end]).map_err(|_| PickleError::Damaged("a name is not UTF-8"))
    }

    fn pop(&mut self) -> Result<Item, PickleError> {
        // A mark fences the values below it.
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err(PickleError::Damaged("a value is missing before a mark"));
        }
        self.stack.pop().ok_or(PickleError::Damaged("the stack is empty"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Item>, PickleError> {
        let mark = self.marks.pop().ok_or(PickleError::Damaged("there is no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn stop(&mut self) -> Result<Item, PickleError> {
        let result = self.pop()?;
        if self.at != self.code.len() {
            return Err(PickleError::Trailing);
        }
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err(PickleError::Damaged("values are left over at its end"));
        }
        Ok(result)
    }

    fn protocol(&mut self) -> Result<(), PickleError> {
        match self.bytes::<1>()? {
            [2] => Ok(()),
            [other] => Err(PickleError::Protocol(other)),
        }
    }

    fn int<const N: usize>(&mut self, value: fn([u8; N]) -> i64) -> Result<(), PickleError> {
        let bytes = self.bytes::<N>()?;
        self.stack.push(Item::Int(value(bytes)));
        Ok(())
    }

    /// LONG1: up to 255 little-endian bytes; what does not fit 64 bits is no size of anything here.
    fn long(&mut self) -> Result<(), PickleError> {
        let [count] = self.bytes::<1>()?;
        let bytes = self.take(usize::from(count))?;
        if bytes.len() > 8 {
            return Err(PickleError::Damaged("a number has more than 64 bits"));
        }
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.stack.push(Item::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn text(&mut self) -> Result<(), PickleError> {
        let length = u32::from_le_bytes(self.bytes()?);
        let bytes = self.take(usize::try_from(length).map_err(|_| PickleError::CutShort)?)?;
        let text = str::from_utf8(bytes).map_err(|_| PickleError::Damaged("a string is not UTF-8"))?;
        self.texts.push(text);
        self.stack.push(Item::Text(self.texts.len() - 1));
        Ok(())
    }

    fn global(&mut self) -> Result<(), PickleError> {
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

    fn push_tuple(&mut self, items: Vec<Item>) {
        self.tuples.push(items);
        self.stack.push(Item::Tuple(self.tuples.len() - 1));
    }

    fn short_tuple(&mut self, count: usize) -> Result<(), PickleError> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push_tuple(items);
        Ok(())
    }

    fn tuple(&mut self) -> Result<(), PickleError> {
        let items = self.pop_to_mark()?;
        self.push_tuple(items);
        Ok(())
    }

    fn push_dict(&mut self) {
        self.dicts.push(Vec::new());
        self.stack.push(Item::Dict(self.dicts.len() - 1));
    }

    fn set_item(&mut self) -> Result<(), PickleError> {
        let (value, key) = (self.pop()?, self.pop()?);
        self.top_dict()?.push((key, value));
        Ok(())
    }

    fn set_items(&mut self) -> Result<(), PickleError> {
        let items = self.pop_to_mark()?;
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(PickleError::Damaged("a dictionary entry has no value"));
        }
        self.top_dict()?.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn top_dict(&mut self) -> Result<&mut Vec<(Item, Item)>, PickleError> {
        match self.stack.last() {
            Some(&Item::Dict(index)) => Ok(&mut self.dicts[index]),
            _ => Err(PickleError::Damaged("entries are set on what is no dictionary")),
        }
    }

    fn put(&mut self, slot: u32) -> Result<(), PickleError> {
        let top = *self.stack.last().ok_or(PickleError::Damaged("the stack is empty"))?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn put_short(&mut self) -> Result<(), PickleError> {
        let [slot] = self.bytes::<1>()?;
        self.put(u32::from(slot))
    }

    fn put_long(&mut self) -> Result<(), PickleError> {
        let slot = u32::from_le_bytes(self.bytes()?);
        self.put(slot)
    }

    fn get(&mut self, slot: u32) -> Result<(), PickleError> {
        let item = *self.memo.get(&slot).ok_or(PickleError::Damaged("it recalls what it never stored"))?;
        self.stack.push(item);
        Ok(())
    }

    fn get_short(&mut self) -> Result<(), PickleError> {
        let [slot] = self.bytes::<1>()?;
        self.get(u32::from(slot))
    }

    fn get_long(&mut self) -> Result<(), PickleError> {
        let slot = u32::from_le_bytes(self.bytes()?);
        self.get(slot)
    }

    fn pop_tuple(&mut self) -> Result<Vec<Item>, PickleError> {
        match self.pop()? {
            Item::Tuple(index) => Ok(self.tuples[index].clone()),
            _ => Err(PickleError::Damaged("a tuple was expected")),
        }
    }

    /// `("storage", class, key, location, length)`
    fn storage(&mut self) -> Result<(), PickleError> {
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

    fn reduce(&mut self) -> Result<(), PickleError> {
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
    fn build(&mut self) -> Result<(), PickleError> {
        match (self.pop()?, self.stack.last()) {
            (Item::Dict(_), Some(Item::Dict(_))) => Ok(()),
            _ => Err(PickleError::Damaged("it sets the state of what is no dictionary")),
        }
    }

    fn dictionary_of_tensors(&self, result: Item) -> Result<BTreeMap<String, TensorView>, PickleError> {
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

/// Short and printable: a hostile name must not fill a log or move its cursor.
fn shortened(text: &str) -> String {
    text.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect()
}
