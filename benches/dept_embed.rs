//! The embedding step on a ragged batch of mixed adapters, against a plain gather of E (what a batch without adapters
//! costs) and against the same input made of candle's ops, all in the same run.
//!
//! `cargo bench --bench dept_embed` measures on all cores and ends with a table.

mod support;

use std::{num::NonZeroUsize, thread::available_parallelism};

use candle_core::{Device, Tensor};
use dept::kernels::{
    dept_embed::{AdapterSlot, DeltaRow, EmbeddingTable, LowRankSlot, Row, RowTable, UpdateSlot, dept_embed},
    pool::ComputePool,
};
use support::{Bench, noise, noises};

const VOCAB: usize = 12288;
const HIDDEN: usize = 512;
const SEQUENCES: usize = 32;
/// The soft prompts of the adapters; their r and s are the same.
const PROMPT_LENGTHS: [usize; 3] = [0, 20, 60];
const RANK: usize = 53;
const MAX_LENGTH: usize = 256;
const SCALE: f32 = 1.1;

/// An adapter's numbers, as ours and as candle's.
struct Adapter {
    prompt: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    /// P `(m, d)`, A `(s, r)`, B `(r, d)`
    tensors: [Tensor; 3],
}

impl Adapter {
    fn new(index: usize) -> Self {
        let m = PROMPT_LENGTHS[index];
        let from = index * 1_000_000;
        let (prompt, a) = (noises(from, m * HIDDEN), noises(from + 100_000, MAX_LENGTH * RANK));
        let b = noises(from + 200_000, RANK * HIDDEN);
        let tensors = [(&prompt, (m, HIDDEN)), (&a, (MAX_LENGTH, RANK)), (&b, (RANK, HIDDEN))].map(
            |(values, shape)| {
                Tensor::from_slice(values, shape, &Device::Cpu).expect("as many values as the shape says")
            },
        );
        Self { prompt, a, b, tensors }
    }

    fn slot(&self) -> AdapterSlot<'_> {
        let low_rank = LowRankSlot { a: &self.a, b: &self.b, rank: RANK, scale: SCALE };
        AdapterSlot { prompt: &self.prompt, update: UpdateSlot::LowRank(low_rank) }
    }
}

/// A sequence: its adapter and its tokens, 8 to 64.
struct Sequence {
    adapter: usize,
    tokens: Vec<u32>,
}

fn sequences() -> Vec<Sequence> {
    let sequence = |index: usize| {
        let token = |at| ((noise(index * 1000 + at) + 1.0) / 2.0 * (VOCAB - 1) as f32) as u32;
        Sequence {
            adapter: index % PROMPT_LENGTHS.len(),
            tokens: (0..8 + index * 7 % 57).map(token).collect(),
        }
    };
    (0..SEQUENCES).map(sequence).collect()
}

fn rows(sequences: &[Sequence]) -> RowTable {
    let mut rows = RowTable::default();
    for Sequence { adapter, tokens } in sequences {
        let slot = *adapter as u32;
        (0..PROMPT_LENGTHS[*adapter] as u32).for_each(|index| rows.push(Row::Prompt { slot, index }));
        for (index, &token) in (0..).zip(tokens) {
            rows.push(Row::Token { token, delta: Some(DeltaRow { slot, index }) });
        }
    }
    rows
}

/// As many rows of E as `rows` has.
fn plain(rows: &RowTable) -> RowTable {
    let mut plain = RowTable::default();
    for (at, row) in rows.iter().enumerate() {
        let token = match row {
            Row::Token { token, .. } => token,
            Row::Prompt { .. } => at as u32,
        };
        plain.push(Row::Token { token, delta: None });
    }
    plain
}

/// `[P; E + scale A B]` of every sequence, one behind the other. `(rows, d)`
fn by_candle(e: &Tensor, adapters: &[Adapter], batch: &[(usize, Tensor)]) -> candle_core::Result<Tensor> {
    let mut parts = Vec::new();
    for (adapter, ids) in batch {
        let [p, a, b] = &adapters[*adapter].tensors;
        let update = a.narrow(0, 0, ids.elem_count())?.matmul(b)?; // (n, d)
        if PROMPT_LENGTHS[*adapter] > 0 {
            parts.push(p.clone());
        }
        parts.push((e.index_select(ids, 0)? + (update * f64::from(SCALE))?)?);
    }
    Tensor::cat(&parts, 0)
}

fn main() {
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let pool = ComputePool::new(threads).expect("threads for the benchmark");
    let values = noises(0, VOCAB * HIDDEN);
    let e = Tensor::from_slice(&values, (VOCAB, HIDDEN), &Device::Cpu).expect("a table of that shape");
    let bytes = values.iter().map(|value| (value * 127.0) as i8).collect();
    let tables = [
        ("f32", 4, EmbeddingTable::f32(VOCAB, HIDDEN, values)),
        ("i8", 1, EmbeddingTable::i8(VOCAB, HIDDEN, bytes, vec![1.0 / 127.0; VOCAB])),
    ];
    let adapters: Vec<Adapter> = (0..PROMPT_LENGTHS.len()).map(Adapter::new).collect();
    let slots: Vec<AdapterSlot> = adapters.iter().map(Adapter::slot).collect();
    let sequences = sequences();
    let rows = rows(&sequences);
    let plain = plain(&rows);
    let ids = |sequence: &Sequence| {
        (sequence.adapter, Tensor::new(sequence.tokens.as_slice(), &Device::Cpu).expect("a list of ids"))
    };
    let batch: Vec<_> = sequences.iter().map(ids).collect();

    let mut bench = Bench::new();
    let count = rows.len() as u64;
    println!("{SEQUENCES} sequences, {count} rows of {HIDDEN}, {threads} threads");
    let mut sizes = Vec::new();
    for (case, width, table) in tables {
        let table = table.expect("a table of that shape");
        let ours = || dept_embed(&table, &slots, &rows, &pool).expect("rows that exist");
        bench.call(case, "dept_embed", count, ours);
        bench
            .call(case, "gather", count, || dept_embed(&table, &[], &plain, &pool).expect("rows that exist"));
        bench.call(case, "candle", count, || by_candle(&e, &adapters, &batch).expect("shapes that fit"));
        sizes.push((case, width));
    }
    println!(
        "\n{:<6}{:<14}{:>10}{:>12}{:>10}{:>14}{:>14}",
        "E", "", "us", "Mrows/s", "GB/s", "to gather", "to candle"
    );
    for (case, width) in sizes {
        for kind in ["dept_embed", "gather", "candle"] {
            let Some(seconds) = bench.seconds(case, kind) else { continue };
            let width = if kind == "candle" { 4 } else { width };
            let moved = if kind == "gather" { moved(&plain, width) } else { moved(&rows, width) };
            println!(
                "{case:<6}{kind:<14}{:>10.1}{:>12.2}{:>10.2}{:>14}{:>14}",
                seconds * 1e6,
                count as f64 / seconds / 1e6,
                moved as f64 / seconds / 1e9,
                bench.ratio(case, kind, "gather"),
                bench.ratio(case, kind, "candle"),
            );
        }
    }
    bench.finish();
}

/// Bytes that have to be read and written: the output, and each row's source once; the small B stays in the cache.
/// `width` is the size of a number of E.
fn moved(rows: &RowTable, width: usize) -> usize {
    let source = |row: Row| match row {
        Row::Prompt { .. } => HIDDEN * 4,
        Row::Token { delta: None, .. } => HIDDEN * width,
        Row::Token { delta: Some(_), .. } => HIDDEN * width + RANK * 4,
    };
    rows.iter().map(|row| HIDDEN * 4 + source(row)).sum()
}
