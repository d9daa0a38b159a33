//! What the CUDA kernels share on the host's side: addresses, the layout of arguments, the shape of a launch.
//!
//! A kernel takes one `#[repr(C)]` structure, whose twin stands in its `.cu` file. `device.cuh` is what all of them include;
//! `shim/` runs the same sources on the host, where [`shim::HostDevice`] holds them against the references.

#[cfg(feature = "cuda")]
pub(super) mod device;
#[cfg(test)]
pub(super) mod shim;

/// An address in a device's memory; 0 where a kernel takes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub(super) struct Address(pub u64);

impl Address {
    /// The address `bytes` behind this one.
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// Values that a kernel reads as they lie in memory.
///
/// # Safety
/// `#[repr(C)]` or a number, without padding, and with every pattern of bits written.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: numbers.
unsafe impl Plain for i8 {}
// SAFETY: numbers.
unsafe impl Plain for u16 {}
// SAFETY: numbers.
unsafe impl Plain for u32 {}
// SAFETY: numbers.
unsafe impl Plain for f32 {}

/// The bytes of `values`.
pub(super) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` types have no padding, so every byte of the slice is written.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// How a kernel is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Launch {
    /// Its name in the compiled module.
    pub kernel: &'static str,
    /// Blocks.
    pub blocks: u32,
    /// Threads a block, whole warps.
    pub threads: u32,
    /// Bytes of dynamic shared memory a block.
    pub shared_bytes: u32,
}

/// The format of activations on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// 32 bits.
    F32,
    /// The upper half of an f32.
    Bf16,
}

impl Format {
    /// Bytes a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// What every source includes; NVRTC has no files, so it is put in its place.
const COMMON: &str = include_str!("device.cuh");
const INCLUDE: &str = "#include \"../cuda/device.cuh\"\n";

/// A source file of kernels.
#[derive(Debug, Clone, Copy)]
struct Source {
    /// Its name in messages.
    name: &'static str,
    /// What the names of its kernels begin with.
    kernels: &'static [&'static str],
    text: &'static str,
}

/// Every source.
const SOURCES: [Source; 7] = [
    Source { name: "best.cu", kernels: &["best_"], text: include_str!("../best/best.cu") },
    Source {
        name: "dept_embed.cu",
        kernels: &["dept_embed"],
        text: include_str!("../dept_embed/dept_embed.cu"),
    },
    Source { name: "matmul.cu", kernels: &["matmul_"], text: include_str!("../matmul/matmul.cu") },
    Source { name: "norm.cu", kernels: &["norm_"], text: include_str!("../norm/norm.cu") },
    Source {
        name: "key_values.cu",
        kernels: &["write_key_values"],
        text: include_str!("../ragged_attention/key_values.cu"),
    },
    Source {
        name: "ragged_attention.cu",
        kernels: &["attend_"],
        text: include_str!("../ragged_attention/ragged_attention.cu"),
    },
    Source { name: "rope.cu", kernels: &["prepare_heads_"], text: include_str!("../rope/rope.cu") },
];

impl Source {
    /// The source with what it includes.
    fn whole(&self) -> String {
        self.text.replacen(INCLUDE, COMMON, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_source_includes_nothing_but_the_shim() {
        for source in SOURCES {
            let whole = source.whole();
            let includes: Vec<&str> = whole.lines().filter(|line| line.starts_with("#include")).collect();
            assert_eq!(includes, ["#include \"shim/shim.hpp\""], "{}", source.name);
            for prefix in source.kernels {
                assert!(whole.contains(prefix), "{}: {prefix}", source.name);
            }
        }
    }
}
