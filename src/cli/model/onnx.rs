//! As much of ONNX as it takes to get weights out of a graph: protobuf fields, initialisers, node names.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};

/// A graph's stored tensors by name, and its nodes.
#[derive(Debug, Default)]
pub(super) struct Graph<'a> {
    pub tensors: BTreeMap<String, Tensor<'a>>,
    pub nodes: Vec<Node>,
}

/// An operation.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub name: String,
    pub kind: String,
    pub inputs: Vec<String>,
}

/// A stored tensor, row-major.
#[derive(Debug, Default)]
pub(super) struct Tensor<'a> {
    pub shape: Vec<usize>,
    data_type: u64,
    raw: &'a [u8],
    /// Scalars are written out here.
    floats: Vec<f32>,
    ints: Vec<i32>,
}

/// ONNX's numbers of the types read here.
const FLOAT: u64 = 1;
const UINT8: u64 = 2;
const INT8: u64 = 3;

impl<'a> Graph<'a> {
    /// From a serialised model.
    pub(super) fn parse(model: &'a [u8]) -> anyhow::Result<Self> {
        let mut graph = Graph::default();
        for field in Fields(model) {
            if let (7, Wire::Bytes(content)) = field? {
                graph.read(content)?;
            }
        }
        Ok(graph)
    }

    fn read(&mut self, content: &'a [u8]) -> anyhow::Result<()> {
        for field in Fields(content) {
            match field? {
                (1, Wire::Bytes(node)) => self.nodes.push(Node::parse(node)?),
                (5, Wire::Bytes(tensor)) => {
                    let (name, tensor) = Tensor::parse(tensor)?;
                    self.tensors.insert(name, tensor);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Node {
    fn parse(content: &[u8]) -> anyhow::Result<Self> {
        let mut node = Self::default();
        for field in Fields(content) {
            match field? {
                (1, Wire::Bytes(input)) => node.inputs.push(text(input)?),
                (3, Wire::Bytes(name)) => node.name = text(name)?,
                (4, Wire::Bytes(kind)) => node.kind = text(kind)?,
                _ => {}
            }
        }
        Ok(node)
    }
}

impl<'a> Tensor<'a> {
    fn parse(content: &'a [u8]) -> anyhow::Result<(String, Self)> {
        let (mut name, mut tensor) = (String::new(), Self::default());
        for field in Fields(content) {
            match field? {
                (1, Wire::Varint(n)) => tensor.shape.push(usize::try_from(n)?),
                (1, Wire::Bytes(packed)) => {
                    for n in varints(packed) {
                        tensor.shape.push(usize::try_from(n?)?);
                    }
                }
                (2, Wire::Varint(number)) => tensor.data_type = number,
                (4, Wire::Bytes(packed)) => {
                    tensor.floats.extend(packed.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
                }
                (4, Wire::Fixed32(bits)) => tensor.floats.push(f32::from_bits(bits)),
                (5, Wire::Varint(n)) => tensor.ints.push(n as i32),
                (5, Wire::Bytes(packed)) => {
                    for n in varints(packed) {
                        tensor.ints.push(n? as i32);
                    }
                }
                (8, Wire::Bytes(content)) => name = text(content)?,
                (9, Wire::Bytes(raw)) => tensor.raw = raw,
                _ => {}
            }
        }
        Ok((name, tensor))
    }

    /// All values of a float tensor.
    pub(super) fn floats(&self) -> anyhow::Result<Vec<f32>> {
        ensure!(self.data_type == FLOAT, "it has the type {}, not float", self.data_type);
        let values = match self.raw {
            [] => self.floats.clone(),
            raw => raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        };
        self.complete(values)
    }

    /// All values of an 8-bit tensor.
    pub(super) fn bytes(&self) -> anyhow::Result<Vec<i32>> {
        let widen: fn(&u8) -> i32 = match self.data_type {
            UINT8 => |b| i32::from(*b),
            INT8 => |b| i32::from(b.cast_signed()),
            other => bail!("it has the type {other}, not 8 bits"),
        };
        let values =
            if self.raw.is_empty() { self.ints.clone() } else { self.raw.iter().map(widen).collect() };
        self.complete(values)
    }

    fn complete<T>(&self, values: Vec<T>) -> anyhow::Result<Vec<T>> {
        let wanted = self.shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        ensure!(wanted == Some(values.len()), "{} values in the shape {:?}", values.len(), self.shape);
        Ok(values)
    }
}

fn text(bytes: &[u8]) -> anyhow::Result<String> {
    Ok(std::str::from_utf8(bytes)?.to_owned())
}

/// A field's value as it lies in the message.
enum Wire<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

/// The fields of a message: number and value. Ends after the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = anyhow::Result<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> anyhow::Result<(u64, Wire<'a>)> {
        let key = varint(&mut self.0)?;
        let value = match key & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => self.take(8).map(|_| Wire::Fixed64)?,
            2 => {
                let length = usize::try_from(varint(&mut self.0)?)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(self.take(4)?.iter().rev().fold(0, |bits, &b| bits << 8 | u32::from(b))),
            other => bail!("not protobuf: wire type {other}"),
        };
        Ok((key >> 3, value))
    }

    fn take(&mut self, length: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).context("the ONNX file is cut short")?;
        self.0 = rest;
        Ok(taken)
    }
}

fn varint(rest: &mut &[u8]) -> anyhow::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().context("the ONNX file is cut short")?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("not protobuf: a number over 64 bits")
}

/// A packed list of numbers.
fn varints(mut packed: &[u8]) -> impl Iterator<Item = anyhow::Result<u64>> {
    std::iter::from_fn(move || {
        if packed.is_empty() {
            return None;
        }
        let number = varint(&mut packed);
        if number.is_err() {
            packed = &[];
        }
        Some(number)
    })
}
