//! Attention over K/V slabs by itself, with keys and values in f32 and in f16, in turns: what a model's layers read in one step,
//! each layer from a slab of its own, so that they come from where they lie in a server.
//!
//! `cargo bench --bench attention` measures on all cores and ends with a table: time, bytes read a second as a share of the read bandwidth
//! out of as much memory, and the share of the floating-point peak, both measured in the same run. `-- decode` restricts it.

#[path = "support/limits.rs"]
mod limits;

use std::{
    env,
    hint::black_box,
    num::NonZeroUsize,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use candle_core::{DType, Device, Tensor};
use dept::{
    kernels::{
        pool::ComputePool,
        ragged_attention::{Attention, HeadShape, Keys, Span, empty_slab, write_key_values},
    },
    kv::BlockId,
};
use limits::Peak;

const BLOCK_SIZE: usize = 16;
/// How long each kind is measured.
const TIME: Duration = Duration::from_secs(2);
const KINDS: [(&str, DType); 2] = [("f32", DType::F32), ("f16", DType::F16)];

/// What one step of a model asks of attention in each of its layers.
struct Case {
    name: &'static str,
    heads: HeadShape,
    layers: usize,
    sequences: usize,
    /// Query rows a sequence, the last ones.
    queries: usize,
    /// Keys a sequence.
    context: usize,
    causal: bool,
    /// Whether all sequences have the same keys: a prefix that they share.
    shared: bool,
}

const T5: HeadShape = HeadShape { heads: 6, kv_heads: 6, dim: 64 };
const SMOLLM2: HeadShape = HeadShape { heads: 9, kv_heads: 3, dim: 64 };

const CASES: [Case; 8] = [
    case("t5 cross decode 1 x 110", T5, 8, (1, 1, 110), false),
    case("t5 cross decode 8 x 110", T5, 8, (8, 1, 110), false),
    case("smollm2 decode 1 x 512", SMOLLM2, 30, (1, 1, 512), true),
    case("smollm2 decode 16 x 64", SMOLLM2, 30, (16, 1, 64), true),
    case("smollm2 decode 16 x 512", SMOLLM2, 30, (16, 1, 512), true),
    Case { shared: true, ..case("smollm2 decode 16 x 512 shared", SMOLLM2, 30, (16, 1, 512), true) },
    // What reading a shared prefix once would take.
    case("smollm2 16 rows of 1 x 512", SMOLLM2, 30, (1, 16, 512), false),
    case("smollm2 prompt 1 x 256", SMOLLM2, 30, (1, 256, 256), true),
];

const fn case(
    name: &'static str,
    heads: HeadShape,
    layers: usize,
    (sequences, queries, context): (usize, usize, usize),
    causal: bool,
) -> Case {
    Case { name, heads, layers, sequences, queries, context, causal, shared: false }
}

impl Case {
    fn blocks(&self) -> usize {
        self.context.div_ceil(BLOCK_SIZE)
    }

    /// Bytes of keys and values that all layers read, with numbers of `size` bytes.
    fn bytes(&self, size: usize) -> usize {
        self.layers * self.sequences * self.context * 2 * self.heads.kv_width() * size
    }

    /// Multiplications and additions of all layers.
    fn operations(&self) -> usize {
        let first = self.context - self.queries;
        let seen = (first..self.context).map(|row| if self.causal { row + 1 } else { self.context });
        self.layers * self.sequences * seen.sum::<usize>() * self.heads.query_width() * 4
    }

    /// A filled slab a layer.
    fn slabs(&self, kv_dtype: DType) -> candle_core::Result<Vec<Tensor>> {
        let slots = self.sequences * self.blocks() * BLOCK_SIZE;
        let width = 2 * self.heads.kv_width();
        let rows = Tensor::rand(-1f32, 1.0, (slots, width), &Device::Cpu)?;
        let all = (0..slots as u32).collect();
        let slab = |_| {
            let slab = empty_slab((slots, width), kv_dtype, &Device::Cpu)?;
            write_key_values(&slab, &rows, &all)?;
            Ok(slab)
        };
        (0..self.layers).map(slab).collect()
    }

    /// The time of all layers.
    fn step(&self, q: &Tensor, slabs: &[Tensor], pool: &ComputePool) -> candle_core::Result<Duration> {
        // The sequences' blocks take turns, as they do when sequences grow side by side.
        let table = |sequence| {
            let own = if self.shared { 0 } else { sequence };
            let blocks = (0..self.blocks()).map(|block| block * self.sequences + own);
            blocks.map(|block| BlockId::new(block as u32)).collect()
        };
        let tables: Vec<Vec<BlockId>> = (0..self.sequences).map(table).collect();
        let spans = tables.iter().enumerate().map(|(sequence, blocks)| Span {
            queries: sequence * self.queries..(sequence + 1) * self.queries,
            first_position: self.context - self.queries,
            context: self.context,
            keys: Keys::Blocks { blocks, block_size: BLOCK_SIZE },
            causal: self.causal,
        });
        let spans: Vec<Span<'_>> = spans.collect();
        let (heads, scale) = (self.heads, 0.125);
        let attention = Attention {
            heads,
            scale,
            soft_cap: None,
            bias: None,
            window: None,
            spans: &spans,
            pool,
            tables: None,
        };
        let began = Instant::now();
        for slab in slabs {
            black_box(attention.over_slab(q, slab)?);
        }
        Ok(began.elapsed())
    }

    /// The median time by kind, in turns.
    fn measure(&self, pool: &ComputePool) -> candle_core::Result<[Duration; KINDS.len()]> {
        let slabs = KINDS.iter().map(|&(_, kv_dtype)| self.slabs(kv_dtype));
        let slabs: Vec<_> = slabs.collect::<candle_core::Result<_>>()?;
        let q = Tensor::rand(
            -1f32,
            1.0,
            (self.sequences * self.queries, self.heads.query_width()),
            &Device::Cpu,
        )?;
        let mut times = [const { Vec::new() }; KINDS.len()];
        let began = Instant::now();
        while began.elapsed() < KINDS.len() as u32 * TIME || times[0].len() < 8 {
            // In changing order, for each finds in the caches what the other has left.
            let turn = times[0].len() % KINDS.len();
            for kind in (turn..KINDS.len()).chain(0..turn) {
                times[kind].push(self.step(&q, &slabs[kind], pool)?);
            }
        }
        Ok(times.map(|times| {
            let mut times = times[1..].to_vec(); // the first warms up
            times.sort();
            times[times.len() / 2]
        }))
    }
}

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let pool = ComputePool::new(available_parallelism().unwrap_or(NonZeroUsize::MIN))?;
    let peak = Peak::measure(&pool);
    let tera = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{:.2}", rate / 1e12));
    let (threads, floats, products) = (pool.threads(), tera(peak.floats), tera(peak.products));
    println!("{threads} threads; peak {floats} TFLOP/s, {products} TOP/s int8; medians of steps, all layers");
    println!("{:<32}{:>10}{:>28}{:>12}", "", "", "us   GB/s of bandwidth", "of peak");
    for case in
        CASES.iter().filter(|case| wanted.is_empty() || wanted.iter().any(|part| case.name.contains(part)))
    {
        let times = case.measure(&pool)?;
        for ((kind, kv_dtype), time) in KINDS.into_iter().zip(times) {
            let (bytes, seconds) = (case.bytes(kv_dtype.size_in_bytes()), time.as_secs_f64());
            let most = limits::read_bandwidth(&pool, bytes);
            let rate = bytes as f64 / seconds;
            let share = |peak: f64| format!("{:.0}%", 1e2 * case.operations() as f64 / seconds / peak);
            let of_peak = peak.floats.map_or("-".to_owned(), share);
            println!(
                "{:<32}{kind:>10}{:>10.0}{:>7.1}{:>10.0}%{of_peak:>13}   {:.2}x",
                case.name,
                seconds * 1e6,
                rate / 1e9,
                1e2 * rate / most,
                times[0].as_secs_f64() / seconds,
            );
        }
    }
    Ok(())
}
