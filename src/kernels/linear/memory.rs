//! Where packed weights lie: in memory of their own, or in a file that is mapped.

use std::ops::Deref;

use bytemuck::Pod;
use bytes::Bytes;

/// Numbers in the order in which kernels read them.
#[derive(Debug)]
pub(super) struct Memory<T>(Place<T>);

#[derive(Debug)]
enum Place<T> {
    Own(Vec<T>),
    /// Whole `T`s at a multiple of their alignment: [`Memory::of`] looks.
    Shared(Bytes),
}

impl<T: Pod> Memory<T> {
    /// `count` numbers that somebody else keeps; `None` where the bytes are more or fewer, or not aligned for them.
    pub(super) fn of(bytes: Bytes, count: usize) -> Option<Memory<T>> {
        let numbers: &[T] = bytemuck::try_cast_slice(&bytes).ok()?;
        (numbers.len() == count).then(|| Memory(Place::Shared(bytes)))
    }

    /// The numbers as they lie in memory.
    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

impl<T> From<Vec<T>> for Memory<T> {
    fn from(numbers: Vec<T>) -> Memory<T> {
        Memory(Place::Own(numbers))
    }
}

impl<T: Pod> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Place::Own(numbers) => numbers,
            Place::Shared(bytes) => bytemuck::cast_slice(bytes),
        }
    }
}
