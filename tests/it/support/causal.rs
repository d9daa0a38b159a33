//! A decoder-only model driven by hand over block tables, without scheduler and runner.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use dept::{
    adapter::AdapterWeights,
    backbones::{
        decoder::{CausalBatch, Decoder, DecoderConfig},
        weights::Weights,
    },
    kernels::{
        Place, RowIndices,
        dept_embed::{AdapterSlot, Adapters, DeltaRow, Row, RowTable, UpdateSlot},
        ragged_attention::{Keys, Span},
    },
    kv::BlockId,
    layers::Recipe,
};

use super::loader;

const BLOCK_SIZE: usize = 5;
const BLOCKS_A_JOB: usize = 24;
/// Rows whose logits are in memory at once: a large vocabulary's take 200 KB each.
const LOGIT_ROWS: usize = 64;

/// A decoder-only model on `threads` threads, for as many positions as a job has.
pub fn load_decoder(path: &Path, recipe: Recipe, threads: usize) -> Decoder {
    load_decoder_to(path, recipe, threads, BLOCKS_A_JOB * BLOCK_SIZE)
}

/// A decoder-only model in f32 in a place of its own.
pub fn load_decoder_at(place: Place, path: &Path) -> Decoder {
    load(place, path, Recipe::F32, 2, BLOCKS_A_JOB * BLOCK_SIZE)
}

/// A decoder-only model on `threads` threads, for texts of `positions` at most.
pub fn load_decoder_to(path: &Path, recipe: Recipe, threads: usize, positions: usize) -> Decoder {
    load(Place::Cpu, path, recipe, threads, positions)
}

fn load(place: Place, path: &Path, recipe: Recipe, threads: usize, positions: usize) -> Decoder {
    let weights = Weights::open(path).unwrap();
    let config = DecoderConfig::read(&weights).unwrap();
    Decoder::load(&loader(&weights, place, recipe, threads), config, positions).unwrap()
}

/// What to generate.
#[derive(Clone, Copy)]
pub struct CausalJob<'a> {
    pub prompt: &'a [u32],
    pub adapter: Option<&'a AdapterWeights>,
    pub new_tokens: usize,
}

/// How prompts are prefilled.
#[derive(Clone, Copy, Debug)]
pub enum Pieces {
    /// In one step.
    Whole,
    /// At most so many rows a step.
    Rows(usize),
}

/// What came out: the greedy tokens, and the logits that each was chosen from.
#[derive(Debug, Default, PartialEq)]
pub struct Generated {
    pub tokens: Vec<u32>,
    pub logits: Vec<Vec<f32>>,
}

/// A job between two steps.
struct Live<'a> {
    job: CausalJob<'a>,
    /// `[P; E + delta]`
    prompt: Vec<Row>,
    /// Rows whose K/V are in the slabs.
    computed: usize,
    blocks: Vec<BlockId>,
    out: Generated,
}

impl<'a> Live<'a> {
    fn new(index: usize, job: CausalJob<'a>) -> Self {
        let slot = index as u32;
        let mut prompt = Vec::new();
        if let Some(weights) = job.adapter {
            prompt.extend((0..weights.prompt_length() as u32).map(|index| Row::Prompt { slot, index }));
        }
        let updated = job.adapter.filter(|weights| weights.updates_tokens());
        for (j, &token) in job.prompt.iter().enumerate() {
            // The left-padded rule: token j of n takes row s - n + j. ADePT has no rows and takes what it is given.
            let first = |weights: &AdapterWeights| weights.max_length().map_or(0, |s| s - job.prompt.len());
            let row = |weights| DeltaRow { slot, index: (first(weights) + j) as u32 };
            prompt.push(Row::Token { token, delta: updated.map(row) });
        }
        // Blocks in falling order, so that no two of a sequence are neighbours.
        let first = index * BLOCKS_A_JOB;
        let blocks = (first..first + BLOCKS_A_JOB).rev().map(|block| BlockId::new(block as u32)).collect();
        Self { job, prompt, computed: 0, blocks, out: Generated::default() }
    }

    fn finished(&self) -> bool {
        self.out.tokens.len() == self.job.new_tokens
    }

    /// The rows of its next step.
    fn next_rows(&self, pieces: Pieces) -> Vec<Row> {
        if self.computed >= self.prompt.len() {
            let token = *self.out.tokens.last().unwrap();
            return vec![Row::Token { token, delta: None }];
        }
        let left = &self.prompt[self.computed..];
        match pieces {
            Pieces::Whole => left.to_vec(),
            Pieces::Rows(most) => left[..most.min(left.len())].to_vec(),
        }
    }

    fn slot_of(&self, position: usize) -> u32 {
        (self.blocks[position / BLOCK_SIZE].index() * BLOCK_SIZE + position % BLOCK_SIZE) as u32
    }
}

/// exp of the mean negative log-likelihood of every token but the first, each after all that stand before it.
pub fn perplexity(model: &Decoder, kv_dtype: DType, tokens: &[u32]) -> f64 {
    let inputs = &tokens[..tokens.len() - 1];
    let blocks: Vec<_> = (0..inputs.len().div_ceil(BLOCK_SIZE) as u32).map(BlockId::new).collect();
    let shape = (blocks.len() * BLOCK_SIZE, model.slab_width());
    let slab = |_| Tensor::zeros(shape, kv_dtype, &Device::Cpu).unwrap();
    let slabs: Vec<Tensor> = (0..model.layers()).map(slab).collect();
    let mut rows = RowTable::default();
    inputs.iter().for_each(|&token| rows.push(Row::Token { token, delta: None }));
    let positions = (0..inputs.len() as u32).collect();
    let keys = Keys::Blocks { blocks: &blocks, block_size: BLOCK_SIZE };
    let span =
        Span { queries: 0..inputs.len(), first_position: 0, context: inputs.len(), keys, causal: true };
    let hidden = model.embed(&Adapters::default(), &rows, &positions).unwrap();
    let batch = CausalBatch { spans: &[span], positions: &positions, slots: &positions, slabs: &slabs };
    let hidden = model.forward(hidden, &batch).unwrap(); // (rows, hidden)
    let mut nats = 0.0;
    for at in (0..inputs.len()).step_by(LOGIT_ROWS) {
        let rows = LOGIT_ROWS.min(inputs.len() - at);
        let logits = model.logits(&hidden.narrow(0, at, rows).unwrap()).unwrap().to_vec2::<f32>().unwrap();
        let next = &tokens[at + 1..];
        nats -= logits.iter().zip(next).map(|(logits, &token)| logprob(logits, token)).sum::<f64>();
    }
    (nats / inputs.len() as f64).exp()
}

/// A token's log-probability.
pub fn logprob(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    f64::from(logits[token as usize] - largest) - sum.ln()
}

/// Generates greedily for all jobs in one ragged batch. Job `i` joins before step `i`.
pub fn generate(model: &Decoder, jobs: &[CausalJob<'_>], pieces: Pieces) -> Vec<Generated> {
    generate_over(DType::F32, model, jobs, pieces)
}

/// The same with keys and values kept in `kv_dtype`.
pub fn generate_over(
    kv_dtype: DType,
    model: &Decoder,
    jobs: &[CausalJob<'_>],
    pieces: Pieces,
) -> Vec<Generated> {
    let mut live: Vec<Live<'_>> =
        jobs.iter().enumerate().map(|(index, job)| Live::new(index, *job)).collect();
    let slots: Vec<AdapterSlot<'_>> = jobs.iter().map(|job| slot_of(job.adapter)).collect();
    let slab_rows = jobs.len() * BLOCKS_A_JOB * BLOCK_SIZE;
    let slab = |_| Tensor::zeros((slab_rows, model.slab_width()), kv_dtype, &Device::Cpu).unwrap();
    let slabs: Vec<Tensor> = (0..model.layers()).map(slab).collect();
    for step in 0.. {
        if live.iter().all(Live::finished) {
            break;
        }
        let joined = live.len().min(step + 1);
        run_step(model, &mut live[..joined], &slots, &slabs, pieces);
    }
    live.into_iter().map(|live| live.out).collect()
}

fn run_step(
    model: &Decoder,
    live: &mut [Live<'_>],
    slots: &[AdapterSlot<'_>],
    slabs: &[Tensor],
    pieces: Pieces,
) {
    let mut table = RowTable::default();
    let (mut positions, mut places) = (RowIndices::default(), RowIndices::default());
    let mut spans = Vec::new();
    let mut taken = Vec::new();
    for (index, live) in live.iter().enumerate().filter(|(_, live)| !live.finished()) {
        let rows = live.next_rows(pieces);
        let range = live.computed..live.computed + rows.len();
        let queries = table.len()..table.len() + rows.len();
        rows.into_iter().for_each(|row| table.push(row));
        positions.extend(range.clone().map(|position| position as u32));
        places.extend(range.clone().map(|position| live.slot_of(position)));
        let keys = Keys::Blocks { blocks: &live.blocks, block_size: BLOCK_SIZE };
        spans.push(Span { queries, first_position: range.start, context: range.end, keys, causal: true });
        taken.push((index, range.end));
    }
    if spans.is_empty() {
        return;
    }
    let hidden = model.embed(&slots.to_vec().into(), &table, &positions).unwrap();
    let batch = CausalBatch { spans: &spans, positions: &positions, slots: &places, slabs };
    let hidden = model.forward(hidden, &batch).unwrap();
    let last: Vec<u32> = spans.iter().map(|span| span.queries.end as u32 - 1).collect();
    drop(spans);
    let last = hidden.index_select(&Tensor::new(last, &Device::Cpu).unwrap(), 0).unwrap();
    let logits = model.logits(&last).unwrap().to_vec2::<f32>().unwrap();
    for ((index, computed), logits) in taken.into_iter().zip(logits) {
        let live = &mut live[index];
        live.computed = computed;
        if computed >= live.prompt.len() {
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            live.out.tokens.push(best as u32);
            live.out.logits.push(logits);
        }
    }
}

fn slot_of(adapter: Option<&AdapterWeights>) -> AdapterSlot<'_> {
    adapter.map_or(AdapterSlot { prompt: &[], update: UpdateSlot::None }, AdapterSlot::from)
}
