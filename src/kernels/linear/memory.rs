//! Where packed weights lie: in memory of their own, or in a file that is mapped.
//!
//! Their own memory comes in large pages where the system has them: a step reads all weights, and asks for the address of each page
//! of them. One map alone would not fill a large page, so all that are packed share a few stretches.

use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::{LazyLock, Mutex, PoisonError};

use bytemuck::Pod;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes that are set aside at a time; those that nothing is written to cost nothing.
const STRETCH: usize = 64 << 20;
/// What is smaller lies where it was made.
const SMALL: usize = 16 << 10;
/// What every map begins at a multiple of: a cache line.
const ALIGNMENT: usize = 64;

/// What is left of the stretch at hand. One for the process, which has one model: a stretch lasts as long as any of its maps.
static LEFT: LazyLock<Mutex<BytesMut>> = LazyLock::new(Mutex::default);

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

/// [`Memory`] that is still written to, where it will stay: a large map is not to be there twice.
#[derive(Debug)]
pub(super) enum Room<T> {
    Own(Vec<T>),
    /// As many bytes as some whole `T`s, at a multiple of [`ALIGNMENT`].
    Shared(BytesMut),
}

impl<T: Pod> Room<T> {
    /// Of `count` zeros.
    pub(super) fn zeroed(count: usize) -> Room<T> {
        let bytes = count * size_of::<T>();
        if bytes < SMALL || align_of::<T>() > ALIGNMENT {
            return Room::Own(bytemuck::zeroed_vec(count));
        }
        Room::Shared(zeros(bytes))
    }

    /// `count` times `number`.
    pub(super) fn filled(count: usize, number: T) -> Room<T> {
        let mut room = Room::zeroed(count);
        room.numbers().fill(number);
        room
    }

    pub(super) fn numbers(&mut self) -> &mut [T] {
        match self {
            Room::Own(numbers) => numbers,
            Room::Shared(bytes) => bytemuck::cast_slice_mut(bytes),
        }
    }

    /// As it was written.
    pub(super) fn done(self) -> Memory<T> {
        Memory(match self {
            Room::Own(numbers) => Place::Own(numbers),
            Room::Shared(bytes) => Place::Shared(bytes.freeze()),
        })
    }
}

/// `count` zeros of the stretch at hand, at a multiple of [`ALIGNMENT`].
fn zeros(count: usize) -> BytesMut {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    let room = count + ALIGNMENT;
    // A stretch whose maps are all gone begins anew.
    if left.capacity() < room && !left.try_reclaim(room) {
        *left = BytesMut::with_capacity(STRETCH.max(room));
        ask_for_large_pages(left.spare_capacity_mut());
    }
    let gap = left.as_ptr().align_offset(ALIGNMENT);
    left.put_bytes(0, gap);
    left.advance(gap);
    left.put_bytes(0, count);
    left.split()
}

/// Advice to the system: one that has no large pages says so, and nothing is lost.
#[cfg(all(target_os = "linux", not(miri)))]
fn ask_for_large_pages(room: &mut [MaybeUninit<u8>]) {
    /// A page of any system, or some.
    const PAGE: usize = 64 << 10;
    let start = room.as_ptr().align_offset(PAGE).min(room.len());
    let pages = &mut room[start..];
    let len = pages.len() / PAGE * PAGE;
    // SAFETY: the pages are whole and lie in `room`, which is ours alone; advice changes none of their bytes.
    unsafe { libc::madvise(pages.as_mut_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn ask_for_large_pages(_: &mut [MaybeUninit<u8>]) {}

impl<T: Pod> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Place::Own(numbers) => numbers,
            Place::Shared(bytes) => bytemuck::cast_slice(bytes),
        }
    }
}
