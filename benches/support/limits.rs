//! What the machine can do at most, measured in the run that is held against it: integer and float products a second,
//! and bytes a second out of as much memory as the weights take.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "what the machine can do is asked of its own instructions")
)]

use std::{hint::black_box, time::Instant};

use dept::kernels::pool::ComputePool;

/// Times that a measurement is taken; the best counts.
const ROUNDS: usize = 12;

/// Operations a second of all of the pool's threads at once: 8-bit products (VPDPBUSD) and f32 fused multiply-adds, each
/// with its addition counted. `None` where the machine has no such instructions.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    pub products: Option<f64>,
    pub floats: Option<f64>,
}

impl Peak {
    pub fn measure(pool: &ComputePool) -> Peak {
        Peak { products: products(pool), floats: floats(pool) }
    }
}

/// Bytes a second that the pool's threads read together out of so many bytes, again and again.
pub fn read_bandwidth(pool: &ComputePool, bytes: usize) -> f64 {
    let memory = vec![1u64; (bytes / 8).max(1)];
    let chunks = 4 * pool.threads();
    let chunk = memory.len().div_ceil(chunks);
    let read = |index: usize| {
        let part = memory.chunks(chunk).nth(index).unwrap_or(&[]);
        let mut sums = [0u64; 32];
        for group in part.chunks_exact(sums.len()) {
            sums.iter_mut().zip(group).for_each(|(sum, value)| *sum ^= value);
        }
        black_box(sums);
    };
    best(|| pool.run(chunks, read), (memory.len() * 8) as f64)
}

/// The best rate of `work`, which does `amount`.
fn best(work: impl Fn(), amount: f64) -> f64 {
    let rate = |_| {
        let start = Instant::now();
        work();
        amount / start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(rate).fold(0.0, f64::max)
}

#[cfg(target_arch = "x86_64")]
const TURNS: usize = 200_000;

/// A loop of 16 independent instructions on 512-bit vectors, TURNS times.
#[cfg(target_arch = "x86_64")]
macro_rules! sixteen {
    ($instruction:literal) => {
        // SAFETY: the instructions work on registers alone, all of which are named as overwritten; the caller has seen that
        // the machine has them.
        unsafe {
            std::arch::asm!(
                "vpxord zmm16, zmm16, zmm16",
                "2:",
                concat!($instruction, " zmm0, zmm16, zmm16"),
                concat!($instruction, " zmm1, zmm16, zmm16"),
                concat!($instruction, " zmm2, zmm16, zmm16"),
                concat!($instruction, " zmm3, zmm16, zmm16"),
                concat!($instruction, " zmm4, zmm16, zmm16"),
                concat!($instruction, " zmm5, zmm16, zmm16"),
                concat!($instruction, " zmm6, zmm16, zmm16"),
                concat!($instruction, " zmm7, zmm16, zmm16"),
                concat!($instruction, " zmm8, zmm16, zmm16"),
                concat!($instruction, " zmm9, zmm16, zmm16"),
                concat!($instruction, " zmm10, zmm16, zmm16"),
                concat!($instruction, " zmm11, zmm16, zmm16"),
                concat!($instruction, " zmm12, zmm16, zmm16"),
                concat!($instruction, " zmm13, zmm16, zmm16"),
                concat!($instruction, " zmm14, zmm16, zmm16"),
                concat!($instruction, " zmm15, zmm16, zmm16"),
                "dec {turns}",
                "jnz 2b",
                turns = inout(reg) TURNS => _,
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _,
                options(nomem, nostack),
            )
        }
    };
}

#[cfg(target_arch = "x86_64")]
fn products(pool: &ComputePool) -> Option<f64> {
    (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")).then(|| {
        let threads = pool.threads();
        best(|| pool.run(threads, |_| sixteen!("vpdpbusd")), (threads * TURNS * 16 * 128) as f64)
    })
}

#[cfg(target_arch = "x86_64")]
fn floats(pool: &ComputePool) -> Option<f64> {
    is_x86_feature_detected!("avx512f").then(|| {
        let threads = pool.threads();
        best(|| pool.run(threads, |_| sixteen!("vfmadd231ps")), (threads * TURNS * 16 * 32) as f64)
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn products(_: &ComputePool) -> Option<f64> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn floats(_: &ComputePool) -> Option<f64> {
    None
}
