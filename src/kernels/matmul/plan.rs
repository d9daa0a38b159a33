//! How a product becomes blocks of `matmul.cu`. The structure here is the kernel's.

use crate::kernels::cuda::{Address, Format, Launch, Plain};

/// Threads of a block.
const THREADS: u32 = 128;
/// Numbers behind each staged row, which keep the banks of shared memory apart.
const APART: usize = 4;

/// `MatmulArgs` of the kernel.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Arguments {
    pub x: Address,
    pub weight: Address,
    pub out: Address,
    pub rows: u32,
    pub n: u32,
    pub k: u32,
    pub vectors: u32,
}

// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for Arguments {}

/// The sides of a product. `(rows, k), (n, k) -> (rows, n)`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sides {
    pub rows: usize,
    pub n: usize,
    pub k: usize,
}

impl Arguments {
    /// For operands in `format`; [`Arguments::out`] is still to be set.
    pub fn new(x: Address, weight: Address, sides: Sides, format: Format) -> Self {
        let quad = 4 * format.bytes() as u64;
        let starts = [x.0, weight.0].iter().all(|start| start.is_multiple_of(quad));
        Self {
            x,
            weight,
            out: Address::default(),
            rows: sides.rows as u32,
            n: sides.n as u32,
            k: sides.k as u32,
            vectors: u32::from(starts && sides.k.is_multiple_of(4)),
        }
    }
}

/// How a product is cut into blocks. Every cut makes the same bits; they differ in time only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// One tile holds all rows: W is read once.
    Few,
    /// Small tiles, and so more of them.
    Small,
    /// Tiles that read each number most rarely.
    Large,
}

impl Cut {
    /// The cut that keeps a device of so many multiprocessors busy.
    pub fn of(sides: Sides, multiprocessors: usize) -> Self {
        let small = Self::Small.tile().rows;
        match sides.rows {
            rows if rows <= Self::Few.tile().rows => Self::Few,
            // A large tile would be half empty.
            rows if rows <= small => Self::Small,
            _ if Self::Large.blocks(sides) < multiprocessors => Self::Small,
            _ => Self::Large,
        }
    }

    /// As the kernel has it.
    fn tile(self) -> Tile {
        match self {
            Self::Few => Tile { rows: 8, columns: 32, depth: 128 },
            Self::Small => Tile { rows: 32, columns: 32, depth: 32 },
            Self::Large => Tile { rows: 64, columns: 64, depth: 16 },
        }
    }

    fn blocks(self, sides: Sides) -> usize {
        let tile = self.tile();
        sides.rows.div_ceil(tile.rows) * sides.n.div_ceil(tile.columns)
    }

    /// How the kernel is started.
    pub fn launch(self, sides: Sides, format: Format) -> Launch {
        let tile = self.tile();
        let kernel = match (self, format) {
            (Self::Few, Format::F32) => "matmul_few_f32",
            (Self::Few, Format::Bf16) => "matmul_few_bf16",
            (Self::Small, Format::F32) => "matmul_small_f32",
            (Self::Small, Format::Bf16) => "matmul_small_bf16",
            (Self::Large, Format::F32) => "matmul_large_f32",
            (Self::Large, Format::Bf16) => "matmul_large_bf16",
        };
        let staged = (tile.rows + tile.columns) * (tile.depth + APART);
        Launch {
            kernel,
            blocks: self.blocks(sides) as u32,
            threads: THREADS,
            shared_bytes: (staged * size_of::<f32>()) as u32,
        }
    }
}

/// What a block makes of `y`, and how much of k it stages at a time.
#[derive(Debug, Clone, Copy)]
struct Tile {
    rows: usize,
    columns: usize,
    depth: usize,
}
