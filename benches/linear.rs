//! The linear op on the shapes of flan-t5-small, against candle's f32 matmul in the same run.
//!
//! `cargo bench --bench linear` measures on all cores and ends with a table; `-- m1/` (any part of a name) restricts it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput};
use dept::kernels::linear::{Activation, ActivationBits, Linear, LinearPart, LinearShape, LinearWeights};
use dept::kernels::pool::ComputePool;

/// The maps of a layer and the head: name, k, n. `gated` is `wi` with its GELU and product.
const SHAPES: [(&str, usize, usize); 6] = [
    ("qkv", 512, 1152),
    ("o", 384, 512),
    ("wi", 512, 2048),
    ("gated", 512, 2048),
    ("wo", 1024, 512),
    ("lm_head", 512, 12288),
];
/// One sequence's decode step, sixteen, a prompt, a batch of prompts.
const ROWS: [usize; 4] = [1, 16, 85, 512];
const KINDS: [&str; 4] = ["candle_f32", "f32", "i8x8", "i8x15"];

/// The best time of a call by (rows, shape, kind).
type Best = RefCell<BTreeMap<(usize, usize, usize), Duration>>;

fn main() {
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let pool = ComputePool::new(threads).expect("threads for the benchmark");
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
        .configure_from_args();
    let best = Best::default();
    for (shape_index, (name, k, n)) in SHAPES.into_iter().enumerate() {
        let shape = LinearShape { n, k };
        let values: Vec<f32> = (0..n * k).map(noise).collect();
        let gated = name == "gated";
        let maps = maps(&values, shape, gated, &pool);
        let dense = Tensor::from_vec(values, (n, k), &Device::Cpu).expect("a tensor of the weights");
        for rows in ROWS {
            let x = (0..rows * k).map(noise).collect();
            let x = Tensor::from_vec(x, (rows, k), &Device::Cpu).expect("a tensor of the activations");
            let mut group = criterion.benchmark_group(format!("m{rows}"));
            group.throughput(Throughput::Elements((2 * rows * n * k) as u64));
            for (kind_index, kind) in KINDS.into_iter().enumerate() {
                group.bench_function(BenchmarkId::new(kind, name), |bencher| {
                    bencher.iter_custom(|iterations| {
                        let start = Instant::now();
                        for _ in 0..iterations {
                            let out = match kind_index {
                                0 => by_candle(&x, &dense, gated),
                                _ => maps[kind_index - 1].forward(&x),
                            };
                            black_box(out).expect("shapes that fit");
                        }
                        let elapsed = start.elapsed();
                        let mut best = best.borrow_mut();
                        let entry = best.entry((rows, shape_index, kind_index)).or_insert(Duration::MAX);
                        *entry = (*entry).min(elapsed.div_f64(iterations as f64));
                        elapsed
                    });
                });
            }
            group.finish();
        }
    }
    print_table(&best.into_inner(), threads);
    criterion.final_summary();
}

/// The map as separate candle ops.
fn by_candle(x: &Tensor, dense: &Tensor, gated: bool) -> candle_core::Result<Tensor> {
    let out = x.matmul(&dense.t()?)?;
    if !gated {
        return Ok(out);
    }
    let parts = out.chunk(2, 1)?;
    parts[0].gelu()? * &parts[1]
}

/// The same weights in each of our formats, in the order of [`KINDS`] after candle's.
fn maps(values: &[f32], shape: LinearShape, gated: bool, pool: &ComputePool) -> [Linear; 3] {
    let build = |values: &[f32], n, bits: Option<ActivationBits>| {
        let shape = LinearShape { n, ..shape };
        let weights = match bits {
            None => Ok(LinearWeights::F32 { values: values.to_vec() }),
            Some(bits) => LinearWeights::quantise(values, shape, bits),
        };
        LinearPart { shape, weights: weights.expect("finite weights"), bias: None }
    };
    [None, Some(ActivationBits::Eight), Some(ActivationBits::Fifteen)].map(|bits| {
        let map = if gated {
            let (gate, up) = values.split_at(values.len() / 2);
            let (gate, up) = (build(gate, shape.n / 2, bits), build(up, shape.n / 2, bits));
            Linear::gated(gate, up, Activation::GeluTanh, pool.clone())
        } else {
            Linear::concat(vec![build(values, shape.n, bits)], pool.clone())
        };
        map.expect("a valid map")
    })
}

/// A fixed, patternless number in -1..1.
fn noise(index: usize) -> f32 {
    let mixed = (index as u32).wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995;
    (mixed.wrapping_mul(mixed >> 15 | 1) >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// One line a shape: GOP/s (2 m n k over the best time) and how many times faster than candle's f32 matmul.
fn print_table(best: &BTreeMap<(usize, usize, usize), Duration>, threads: NonZeroUsize) {
    println!("\n{threads} threads; microseconds, GOP/s (ratio to candle_f32)");
    println!("{:<20}{:>26}{:>26}{:>26}{:>26}", "m x k x n", KINDS[0], KINDS[1], KINDS[2], KINDS[3]);
    for (shape_index, (name, k, n)) in SHAPES.into_iter().enumerate() {
        for rows in ROWS {
            let time = |kind| best.get(&(rows, shape_index, kind)).map(Duration::as_secs_f64);
            if (0..KINDS.len()).all(|kind| time(kind).is_none()) {
                continue;
            }
            print!("{:<20}", format!("{name} {rows}x{k}x{n}"));
            for kind in 0..KINDS.len() {
                let Some(seconds) = time(kind) else {
                    print!("{:>26}", "-");
                    continue;
                };
                let gops = (2 * rows * n * k) as f64 / seconds / 1e9;
                let ratio = time(0).map_or(f64::NAN, |candle| candle / seconds);
                print!("{:>26}", format!("{:.1} {gops:.0} ({ratio:.1}x)", seconds * 1e6));
            }
            println!();
        }
    }
}
