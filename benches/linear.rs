//! The linear op on the shapes of flan-t5-small and SmolLM2-135M, against candle's f32 matmul in the same run, and against what
//! the machine can do: the share of its instructions' peak, and of its read bandwidth out of as much memory.
//!
//! `cargo bench --bench linear` measures on all cores and ends with a table; `-- m1/` (any part of a name) restricts it.

#[path = "support/limits.rs"]
mod limits;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput};
use dept::kernels::linear::{
    Activation, ActivationBits, Epilogue, Linear, LinearPart, LinearShape, LinearWeights,
};
use dept::kernels::pool::ComputePool;
use half::{bf16, f16};
use limits::Peak;

/// A linear map from `k` inputs to `n` products; a gate halves its outputs.
#[derive(Clone, Copy)]
struct Map {
    k: usize,
    n: usize,
    gated: bool,
}

const fn map(k: usize, n: usize) -> Map {
    Map { k, n, gated: false }
}

const QKV: Map = map(512, 1152);
const Q: Map = map(512, 384);
const O: Map = map(384, 512);
const WI: Map = map(512, 2048);
/// `WI` with its GELU and product.
const GATED: Map = Map { gated: true, ..WI };
const WO: Map = map(1024, 512);
const HEAD: Map = map(512, 12288);

/// A block of SmolLM2-135M: q, k and v, output, gate and up, down.
const SMOLLM2: [Map; 4] =
    [map(576, 960), map(576, 576), Map { k: 576, n: 3072, gated: true }, map(1536, 576)];

/// What is measured: single maps, whose weights stay in the nearest cache, and all of a decoder's in turn, which do not.
fn cases() -> Vec<(&'static str, Vec<Map>)> {
    let mut decoder = [QKV, O, Q, O, GATED, WO].repeat(8);
    decoder.push(HEAD);
    let single = [("qkv", QKV), ("o", O), ("wi", WI), ("gated", GATED), ("wo", WO), ("lm_head", HEAD)];
    let mut cases: Vec<_> = single.into_iter().map(|(name, map)| (name, vec![map])).collect();
    cases.push(("decoder", decoder));
    let mut smollm2 = SMOLLM2.repeat(30);
    smollm2.push(map(576, 49152));
    cases.push(("smollm2", smollm2));
    cases
}

/// One sequence's decode step, eight, sixteen, a prompt, a batch of prompts.
const ROWS: [usize; 5] = [1, 8, 16, 85, 512];
const KINDS: [&str; 8] = ["candle_f32", "f32", "f16", "bf16", "i8x8", "i8x15", "blocks", "nibbles"];
/// Bits a weight takes in each of them.
const WEIGHT_BITS: [f64; 8] = [32.0, 32.0, 16.0, 16.0, 8.0, 8.0, 8.5, 5.0];

/// A map in each of our formats.
type Maps = [Linear; KINDS.len() - 1];

/// The best time of a call by (rows, case, kind).
type Best = RefCell<BTreeMap<(usize, usize, usize), Duration>>;

/// One map in every kind, with its input.
struct Subject {
    x: Tensor,
    dense: Tensor,
    gated: bool,
    maps: Rc<Maps>,
}

impl Subject {
    fn run(&self, kind: usize) -> candle_core::Result<Tensor> {
        match kind {
            0 => by_candle(&self.x, &self.dense, self.gated),
            _ => self.maps[kind - 1].forward(&self.x),
        }
    }
}

fn main() {
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let pool = ComputePool::new(threads).expect("threads for the benchmark");
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
        .configure_from_args();
    let best = Best::default();
    for (case, (name, maps)) in cases().into_iter().enumerate() {
        let built: Vec<_> = maps.iter().map(|map| build(map, &pool)).collect();
        for rows in rows_of(&maps) {
            let subjects: Vec<Subject> =
                maps.iter().zip(&built).map(|(map, built)| subject(map, built, rows)).collect();
            let mut group = criterion.benchmark_group(format!("m{rows}"));
            group.throughput(Throughput::Elements(operations(&maps, rows)));
            for (kind, kind_name) in KINDS.into_iter().enumerate() {
                group.bench_function(BenchmarkId::new(kind_name, name), |bencher| {
                    bencher.iter_custom(|iterations| {
                        let start = Instant::now();
                        for _ in 0..iterations {
                            for subject in &subjects {
                                black_box(subject.run(kind)).expect("shapes that fit");
                            }
                        }
                        let elapsed = start.elapsed();
                        let mut best = best.borrow_mut();
                        let entry = best.entry((rows, case, kind)).or_insert(Duration::MAX);
                        *entry = (*entry).min(elapsed.div_f64(iterations as f64));
                        elapsed
                    });
                });
            }
            group.finish();
        }
    }
    print_table(&best.into_inner(), &pool);
    criterion.final_summary();
}

/// The batch sizes of a case; a decoder sees no prompt.
fn rows_of(maps: &[Map]) -> impl Iterator<Item = usize> {
    let most = if maps.len() > 1 { 16 } else { usize::MAX };
    ROWS.into_iter().filter(move |&rows| rows <= most)
}

/// Multiplications and additions of a case.
fn operations(maps: &[Map], rows: usize) -> u64 {
    maps.iter().map(|map| 2 * rows * map.n * map.k).sum::<usize>() as u64
}

/// A map's weights as candle's tensor and in each of our formats.
fn build(map: &Map, pool: &ComputePool) -> (Tensor, Rc<Maps>) {
    let values: Vec<f32> = (0..map.n * map.k).map(noise).collect();
    let maps = Rc::new(our_maps(&values, map, pool));
    (Tensor::from_vec(values, (map.n, map.k), &Device::Cpu).expect("a tensor of the weights"), maps)
}

fn subject(map: &Map, (dense, maps): &(Tensor, Rc<Maps>), rows: usize) -> Subject {
    let x = (0..rows * map.k).map(noise).collect();
    let x = Tensor::from_vec(x, (rows, map.k), &Device::Cpu).expect("a tensor of the activations");
    Subject { x, dense: dense.clone(), gated: map.gated, maps: Rc::clone(maps) }
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
fn our_maps(values: &[f32], map: &Map, pool: &ComputePool) -> Maps {
    let part = |values: &[f32], n, kind| {
        let shape = LinearShape { n, k: map.k };
        let weights = match kind {
            1 => Ok(LinearWeights::F32 { values: values.to_vec() }),
            2 => {
                Ok(LinearWeights::F16 { values: values.iter().map(|&value| f16::from_f32(value)).collect() })
            }
            3 => Ok(LinearWeights::Bf16 {
                values: values.iter().map(|&value| bf16::from_f32(value)).collect(),
            }),
            4 => LinearWeights::quantise(values, shape, ActivationBits::Eight),
            5 => LinearWeights::quantise(values, shape, ActivationBits::Fifteen),
            6 => LinearWeights::quantise_blocks(values, shape, ActivationBits::Eight),
            _ => Ok(nibbles(values, shape)),
        };
        LinearPart { shape, weights: weights.expect("finite weights"), bias: None }
    };
    std::array::from_fn(|index| index + 1).map(|kind| {
        let built = if map.gated {
            let (gate, up) = values.split_at(values.len() / 2);
            let (gate, up) = (part(gate, map.n / 2, kind), part(up, map.n / 2, kind));
            Linear::pack(vec![gate, up], Epilogue::Gated(Activation::GeluTanh), pool.clone())
        } else {
            Linear::concat(vec![part(values, map.n, kind)], pool.clone())
        };
        built.expect("a valid map")
    })
}

/// Values in -1..1 as 4 bits, all blocks with one scale and offset.
fn nibbles(values: &[f32], shape: LinearShape) -> LinearWeights {
    let numbers = |value| vec![f16::from_f32(value); shape.n * shape.k.div_ceil(32)];
    let level = |value: &f32| ((value + 1.0) * 8.0).min(15.0) as u8;
    LinearWeights::Nibbles {
        levels: values.iter().map(level).collect(),
        scales: numbers(0.125),
        offsets: numbers(-0.9375),
        activations: ActivationBits::Eight,
    }
}

/// A fixed, patternless number in -1..1.
fn noise(index: usize) -> f32 {
    let mixed = (index as u32).wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995;
    (mixed.wrapping_mul(mixed >> 15 | 1) >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Operations a second that the instructions of a kind could do; fifteen bits take two products.
fn peak_of(kind: usize, peak: Peak) -> Option<f64> {
    match kind {
        0..=3 => peak.floats,
        5 => peak.products.map(|products| products / 2.0),
        _ => peak.products,
    }
}

/// One line a case and batch size: microseconds, GOP/s (2 m n k over the best time), their share of the peak, the weights'
/// bytes a second as a share of the read bandwidth, and how many times faster than candle's f32 matmul.
fn print_table(best: &BTreeMap<(usize, usize, usize), Duration>, pool: &ComputePool) {
    let peak = Peak::measure(pool);
    let tera = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{:.2}", rate / 1e12));
    println!(
        "\n{} threads; peak {} TOP/s int8, {} TFLOP/s",
        pool.threads(),
        tera(peak.products),
        tera(peak.floats)
    );
    println!("microseconds, GOP/s, share of the peak, share of the read bandwidth, ratio to candle_f32");
    print!("{:<20}", "m x k x n");
    KINDS.iter().for_each(|kind| print!("{kind:>36}"));
    println!();
    for (case, (name, maps)) in cases().into_iter().enumerate() {
        let weights: usize = maps.iter().map(|map| map.n * map.k).sum();
        let bandwidth = WEIGHT_BITS.map(|bits| (bits, weights as f64 * bits / 8.0));
        let bandwidth = bandwidth.map(|(_, bytes)| (bytes, limits::read_bandwidth(pool, bytes as usize)));
        for rows in ROWS {
            let time = |kind| best.get(&(rows, case, kind)).map(Duration::as_secs_f64);
            if (0..KINDS.len()).all(|kind| time(kind).is_none()) {
                continue;
            }
            match maps[..] {
                [Map { k, n, .. }] => print!("{:<20}", format!("{name} {rows}x{k}x{n}")),
                _ => print!("{:<20}", format!("{name} {rows}")),
            }
            for (kind, (bytes, most)) in bandwidth.into_iter().enumerate() {
                let Some(seconds) = time(kind) else {
                    print!("{:>36}", "-");
                    continue;
                };
                let rate = operations(&maps, rows) as f64 / seconds;
                let of_peak = peak_of(kind, peak).map_or(f64::NAN, |peak| 1e2 * rate / peak);
                let of_bandwidth = 1e2 * bytes / seconds / most;
                let ratio = time(0).map_or(f64::NAN, |candle| candle / seconds);
                let (us, gops) = (seconds * 1e6, rate / 1e9);
                let cell = format!("{us:.1} {gops:.0} {of_peak:.0}% {of_bandwidth:.0}% ({ratio:.1}x)");
                print!("{cell:>36}");
            }
            println!();
        }
    }
}
