//! The stack machine: opcodes that only move values about.

use std::collections::HashMap;

use super::{
    PickleError, TensorView,
    torch::{Global, Storage},
};

/// A value on the stack: small, with the numbers of arena entries in place of contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
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
    pub(super) fn kind(self) -> &'static str {
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

/// Stack, marks, memo and the arenas.
pub(super) struct Machine<'a> {
    code: &'a [u8],
    at: usize,
    pub(super) stack: Vec<Item>,
    marks: Vec<usize>,
    memo: HashMap<u32, Item>,
    pub(super) texts: Vec<&'a str>,
    pub(super) tuples: Vec<Vec<Item>>,
    pub(super) dicts: Vec<Vec<(Item, Item)>>,
    pub(super) storages: Vec<Storage>,
    pub(super) tensors: Vec<TensorView>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(code: &'a [u8]) -> Self {
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
    pub(super) fn run(&mut self) -> Result<Item, PickleError> {
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

    pub(super) fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.code[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').ok_or(PickleError::CutShort)?;
        self.at += end + 1;
        str::from_utf8(&rest[..end]).map_err(|_| PickleError::Damaged("a name is not UTF-8"))
    }

    pub(super) fn pop(&mut self) -> Result<Item, PickleError> {
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

    pub(super) fn push_dict(&mut self) {
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

    pub(super) fn pop_tuple(&mut self) -> Result<Vec<Item>, PickleError> {
        match self.pop()? {
            Item::Tuple(index) => Ok(self.tuples[index].clone()),
            _ => Err(PickleError::Damaged("a tuple was expected")),
        }
    }
}
