//! The GGUF container, versions 2 and 3: checked before anything is believed.
//!
//! A reader over the mapped bytes: counts and lengths are held against what is left of the file before
//! memory is asked for, so that a file never costs more than a few times its own size.

use std::collections::BTreeMap;

use super::{Entry, Format, Metadata, Tensors, Value};

/// A GGUF file's first four bytes.
pub(super) const MAGIC: &[u8] = b"GGUF";

const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// Metadata and tensors of a whole file. The error says what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<(Metadata, Tensors), String> {
    let mut reader = Reader { bytes, at: 0 };
    reader.take(MAGIC.len(), "magic")?;
    let version = reader.u32("version")?;
    if !(2..=3).contains(&version) {
        return Err(format!("GGUF version {version}; versions 2 and 3 are read"));
    }
    // The smallest tensor description is 24 bytes, the smallest pair 13.
    let tensor_count = reader.count(24, "tensors")?;
    let pair_count = reader.count(13, "metadata pairs")?;
    let mut values = BTreeMap::new();
    for _ in 0..pair_count {
        let key = reader.text("a metadata key")?;
        let value = reader.value(&key)?;
        if values.contains_key(&key) {
            return Err(format!("the metadata key '{key}' comes twice"));
        }
        values.insert(key, value);
    }
    let described: Vec<_> = (0..tensor_count).map(|_| reader.tensor()).collect::<Result<_, _>>()?;
    let metadata: Metadata = values.into_iter().collect();
    let data = data_start(&metadata, reader.at as u64)?;
    Ok((metadata, place(described, data, bytes.len())?))
}

/// Where tensor data begins: the next multiple of the file's alignment.
fn data_start(metadata: &Metadata, header_end: u64) -> Result<u64, String> {
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(Value::Int(value)) => u64::try_from(*value)
            .ok()
            .filter(|a| (8..=1 << 20).contains(a) && a % 8 == 0)
            .ok_or_else(|| format!("general.alignment is {value}; it must be a multiple of 8 up to 2^20"))?,
        Some(_) => return Err("general.alignment isn't an integer".into()),
    };
    Ok(header_end.next_multiple_of(alignment))
}

struct Described {
    name: String,
    shape: Vec<usize>,
    format: Format,
    offset: u64,
}

/// Gives every tensor its bytes: inside the file, at a multiple of 8, none over another.
fn place(described: Vec<Described>, data: u64, file_len: usize) -> Result<Tensors, String> {
    let mut tensors = Tensors::new();
    let mut extents = Vec::with_capacity(described.len());
    for Described { name, shape, format, offset } in described {
        let length = format.bytes(&shape).ok_or_else(|| {
            format!("the tensor '{name}' of shape {shape:?} doesn't fill whole {} blocks", format.name())
        })?;
        let start = data.checked_add(offset).and_then(|s| usize::try_from(s).ok());
        let range = start
            .and_then(|start| Some(start..start.checked_add(length)?))
            .filter(|range| range.end <= file_len)
            .ok_or_else(|| {
                format!("the tensor '{name}' ({length} bytes at {offset}) ends behind the file's end")
            })?;
        if !range.start.is_multiple_of(8) {
            return Err(format!("the tensor '{name}' lies at the odd offset {offset}"));
        }
        extents.push((range.clone(), name.clone()));
        if tensors.insert(name.clone(), Entry { format, shape, file: 0, range }).is_some() {
            return Err(format!("the tensor '{name}' comes twice"));
        }
    }
    extents.sort_by_key(|(range, _)| (range.start, range.end));
    for pair in extents.windows(2) {
        if pair[0].0.end > pair[1].0.start {
            return Err(format!("the tensors '{}' and '{}' overlap", pair[0].1, pair[1].1));
        }
    }
    Ok(tensors)
}

/// The value types of the format, by number.
mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const TEXT: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or_else(|| {
            format!("the file ends inside {what} ({length} bytes wanted, {} left)", rest.len())
        })?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things of at least `least` bytes each, which must fit what is left of the file.
    fn count(&mut self, least: usize, what: &str) -> Result<usize, String> {
        let count = self.u64(what)?;
        let left = self.bytes.len() - self.at;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= left / least)
            .ok_or_else(|| format!("it claims {count} {what}, but only {left} bytes are left"))
    }

    fn text(&mut self, what: &str) -> Result<String, String> {
        let length = self.count(1, "bytes of text")?;
        // Some writers leave broken UTF-8 in byte-level vocabularies: read it, marked.
        Ok(String::from_utf8_lossy(self.take(length, what)?).into_owned())
    }

    fn value(&mut self, key: &str) -> Result<Value, String> {
        match self.u32(key)? {
            kind::ARRAY => self.list(key),
            kind::TEXT => self.text(key).map(Value::Text),
            kind::BOOL => self.truth(key).map(Value::Bool),
            kind::F32 => self.array(key).map(|b| Value::Float(f64::from(f32::from_le_bytes(b)))),
            kind::F64 => self.array(key).map(|b| Value::Float(f64::from_le_bytes(b))),
            kind::U64 => self.u64(key).map(|v| Value::Int(v.into())),
            other => self.int(other, key).map(|v| Value::Int(v.into())),
        }
    }

    fn list(&mut self, key: &str) -> Result<Value, String> {
        let element = self.u32(key)?;
        let least = match element {
            kind::U8 | kind::I8 | kind::BOOL => 1,
            kind::U16 | kind::I16 => 2,
            kind::U32 | kind::I32 | kind::F32 => 4,
            kind::U64 | kind::I64 | kind::F64 | kind::TEXT => 8,
            other => return Err(format!("'{key}' is an array of type {other}, which isn't read")),
        };
        let count = self.count(least, "array elements")?;
        Ok(match element {
            kind::U8 | kind::I8 => Value::Bytes(self.take(count, key)?.to_vec()),
            kind::BOOL => Value::Bools(self.many(count, |r| r.truth(key))?),
            kind::TEXT => Value::Texts(self.many(count, |r| r.text(key))?),
            kind::F32 => {
                Value::Floats(self.many(count, |r| r.array(key).map(|b| f32::from_le_bytes(b).into()))?)
            }
            kind::F64 => Value::Floats(self.many(count, |r| r.array(key).map(f64::from_le_bytes))?),
            kind::U64 => Value::Ints(self.many(count, |r| {
                i64::try_from(r.u64(key)?).map_err(|_| format!("'{key}' holds an integer over 2^63"))
            })?),
            other => Value::Ints(self.many(count, |r| r.int(other, key))?),
        })
    }

    fn many<T>(
        &mut self,
        count: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        (0..count).map(|_| one(self)).collect()
    }

    fn int(&mut self, number: u32, key: &str) -> Result<i64, String> {
        Ok(match number {
            kind::U8 => self.array::<1>(key)?[0].into(),
            kind::I8 => i8::from_le_bytes(self.array(key)?).into(),
            kind::U16 => u16::from_le_bytes(self.array(key)?).into(),
            kind::I16 => i16::from_le_bytes(self.array(key)?).into(),
            kind::U32 => u32::from_le_bytes(self.array(key)?).into(),
            kind::I32 => i32::from_le_bytes(self.array(key)?).into(),
            kind::I64 => i64::from_le_bytes(self.array(key)?),
            other => return Err(format!("'{key}' has the unknown type {other}")),
        })
    }

    fn truth(&mut self, key: &str) -> Result<bool, String> {
        match self.array::<1>(key)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("'{key}' is the boolean {other}")),
        }
    }

    fn tensor(&mut self) -> Result<Described, String> {
        let name = self.text("a tensor's name")?;
        let dimensions = self.u32(&name)?;
        if dimensions > MAX_DIMENSIONS {
            return Err(format!(
                "the tensor '{name}' has {dimensions} dimensions; {MAX_DIMENSIONS} is the most"
            ));
        }
        let mut shape = self.many(dimensions as usize, |r| {
            usize::try_from(r.u64(&name)?).map_err(|_| format!("the tensor '{name}' has an absurd dimension"))
        })?;
        shape.reverse(); // the file lists the innermost dimension first
        let number = self.u32(&name)?;
        let format = Format::from_ggml(number)
            .ok_or_else(|| format!("the tensor '{name}' has the type number {number}, which isn't read"))?;
        let offset = self.u64(&name)?;
        Ok(Described { name, shape, format, offset })
    }
}
