use std::num::NonZeroUsize;

use candle_core::{DType, Device, Tensor};

use super::{Runner, RunnerError, StepError, StepOutput};
use crate::{
    adapter::{AdapterLease, AdapterWeights},
    backbones::t5::{DecoderBatch, T5},
    kernels::{
        dept_embed::{AdapterSlot, DeltaRow, LowRankSlot, Row, RowTable},
        ragged_attention::{Keys, Span},
    },
    sampling::{Mask, Scratch},
    scheduler::{Decode, Encode, Sequence, SequenceId, Sequences, StepPlan},
};

/// The K/V memory of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerConfig {
    /// Blocks in every slab.
    pub num_blocks: u32,
    /// Positions a block.
    pub block_size: NonZeroUsize,
}

/// Runs a T5 over ragged batches.
#[derive(Debug)]
pub struct T5Runner {
    model: T5,
    block_size: usize,
    /// K/V by decoder block. `(num_blocks * block_size, [k; v])`
    slabs: Vec<Tensor>,
    /// The cohort that is between two steps of the encoder.
    encoding: Option<Encoding>,
    rows: RowTable,
    slots: Vec<u32>,
    logits: Vec<f32>,
    scratch: Scratch,
}

/// Packed prompts on their way through the encoder.
#[derive(Debug)]
struct Encoding {
    cohort: u64,
    /// After the blocks that ran so far. `(rows, hidden)`
    hidden: Tensor,
}

impl T5Runner {
    /// A runner with empty K/V slabs.
    ///
    /// # Errors
    /// When the slabs can't be allocated.
    pub fn new(model: T5, config: RunnerConfig) -> Result<Self, RunnerError> {
        let block_size = config.block_size.get();
        let shape = (config.num_blocks as usize * block_size, model.slab_width());
        // Zeroed pages cost no memory until a block is first used.
        let slab = |_| Tensor::zeros(shape, DType::F32, &Device::Cpu);
        let slabs = (0..model.config().decoder_layers).map(slab).collect::<candle_core::Result<_>>()?;
        Ok(Self {
            model,
            block_size,
            slabs,
            encoding: None,
            rows: RowTable::default(),
            slots: Vec::new(),
            logits: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    /// Bytes of K/V that one block of `block_size` positions takes in all slabs together.
    pub fn block_bytes(model: &T5, block_size: NonZeroUsize) -> usize {
        block_size.get() * model.config().decoder_layers * model.slab_width() * size_of::<f32>()
    }

    fn encode(&mut self, encode: &Encode, sequences: &Sequences) -> Result<(), RunnerError> {
        let members = live(sequences, &encode.sequences)?;
        let resumed = self.encoding.take().filter(|encoding| encoding.cohort == encode.cohort);
        let hidden = match resumed {
            Some(encoding) => encoding.hidden,
            None => self.embed_prompts(&members)?,
        };
        let spans = prompt_spans(&members);
        let hidden = self.model.encode(hidden, &spans, encode.layers.clone())?;
        if !encode.last {
            self.encoding = Some(Encoding { cohort: encode.cohort, hidden });
            return Ok(());
        }
        self.slots.clear();
        for sequence in &members {
            self.slots.extend(sequence.prompt.slots(0..sequence.prompt_rows()).map(|slot| slot as u32));
        }
        Ok(self.model.write_prompt(&self.model.finish_encoder(&hidden)?, &self.slabs, &self.slots)?)
    }

    /// `[P; E + delta]` of every prompt, packed. `(rows, hidden)`
    fn embed_prompts(&mut self, members: &[&Sequence]) -> Result<Tensor, RunnerError> {
        let mut adapters: Vec<&AdapterLease> = Vec::new();
        self.rows.clear();
        for sequence in members {
            let adapter = sequence.request.adapter.as_ref().map(|lease| {
                let known = adapters.iter().position(|held| held.same(lease));
                let slot = known.unwrap_or_else(|| {
                    adapters.push(lease);
                    adapters.len() - 1
                });
                (slot as u32, &**lease.weights())
            });
            push_prompt(&mut self.rows, &sequence.request.prompt, adapter);
        }
        let slots: Vec<AdapterSlot> = adapters.iter().map(|lease| slot_of(lease.weights())).collect();
        Ok(self.model.embed(&slots, &self.rows)?)
    }

    fn decode(
        &mut self,
        decode: &[Decode],
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), RunnerError> {
        let logits = self.decode_logits(decode, sequences)?; // (sequences, vocab)
        let vocab = self.model.config().vocab;
        let eos = [self.model.config().eos];
        let (storage, _) = logits.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            return Err(candle_core::Error::msg("the logits of a CPU runner are on the CPU").into());
        };
        for (row, planned) in storage.as_slice::<f32>()?.chunks_exact(vocab).zip(decode) {
            let id = planned.sequence;
            let sequence = sequences.get_mut(id).ok_or(RunnerError::NoSequence(id))?;
            let banned: &[u32] = if sequence.must_go_on() { &eos } else { &[] };
            self.logits.clear();
            self.logits.extend_from_slice(row);
            let mask = Mask { banned, allowed: None };
            let sampled = sequence.request.sampler.sample(&mut self.logits, mask, &mut self.scratch);
            output.tokens.push((id, sampled));
        }
        Ok(())
    }

    /// Runs the decoder and returns the logits of every sequence's last row. `(sequences, vocab)`
    fn decode_logits(&mut self, decode: &[Decode], sequences: &Sequences) -> Result<Tensor, RunnerError> {
        let start = self.model.config().decoder_start;
        self.rows.clear();
        self.slots.clear();
        let (mut past, mut prompt) = (Vec::with_capacity(decode.len()), Vec::with_capacity(decode.len()));
        for planned in decode {
            let sequence =
                sequences.get(planned.sequence).ok_or(RunnerError::NoSequence(planned.sequence))?;
            let queries = self.rows.len()..self.rows.len() + planned.rows.len();
            for row in planned.rows.clone() {
                let token = if row == 0 { start } else { sequence.generated[row - 1] };
                self.rows.push(Row::Token { token, delta: None });
            }
            self.slots.extend(sequence.past.slots(planned.rows.clone()).map(|slot| slot as u32));
            let keys = Keys::Blocks { blocks: sequence.past.blocks(), block_size: self.block_size };
            let (first_position, context) = (planned.rows.start, planned.rows.end);
            past.push(Span { queries: queries.clone(), first_position, context, keys, causal: true });
            let keys = Keys::Blocks { blocks: sequence.prompt.blocks(), block_size: self.block_size };
            let context = sequence.prompt_rows();
            prompt.push(Span { queries, first_position, context, keys, causal: false });
        }
        let embedded = self.model.embed(&[], &self.rows)?; // (rows, hidden)
        let batch = DecoderBatch { past: &past, prompt: &prompt, slots: &self.slots, slabs: &self.slabs };
        let hidden = self.model.decode(embedded, &batch)?; // (rows, hidden)
        let last = if past.len() == self.rows.len() {
            hidden
        } else {
            let last: Vec<u32> = past.iter().map(|span| span.queries.end as u32 - 1).collect();
            hidden.index_select(&Tensor::new(last, &Device::Cpu)?, 0)?
        };
        Ok(self.model.logits(&last)?)
    }
}

impl Runner for T5Runner {
    fn step(
        &mut self,
        plan: &StepPlan,
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        if let Some(encode) = &plan.encode {
            self.encode(encode, sequences).map_err(StepError::Encode)?;
        }
        if plan.decode.is_empty() {
            return Ok(());
        }
        self.decode(&plan.decode, sequences, output).map_err(StepError::Decode)
    }
}

fn live<'a>(sequences: &'a Sequences, ids: &[SequenceId]) -> Result<Vec<&'a Sequence>, RunnerError> {
    ids.iter().map(|&id| sequences.get(id).ok_or(RunnerError::NoSequence(id))).collect()
}

/// One span a prompt: every row of it sees every other.
fn prompt_spans(members: &[&Sequence]) -> Vec<Span<'static>> {
    let mut start = 0;
    let span = |sequence: &&Sequence| {
        let rows = sequence.prompt_rows();
        let queries = start..start + rows;
        let span =
            Span { queries, first_position: 0, context: rows, keys: Keys::Rows { start }, causal: false };
        start += rows;
        span
    };
    members.iter().map(span).collect()
}

/// The rows `[P; E + delta]` of one prompt. T5 pads on the right: token `i` takes delta row `i`.
fn push_prompt(rows: &mut RowTable, tokens: &[u32], adapter: Option<(u32, &AdapterWeights)>) {
    if let Some((slot, weights)) = adapter {
        for index in 0..weights.prompt_length() as u32 {
            rows.push(Row::Prompt { slot, index });
        }
    }
    let updated = adapter.filter(|(_, weights)| weights.low_rank().is_some());
    for (index, &token) in (0..).zip(tokens) {
        rows.push(Row::Token { token, delta: updated.map(|(slot, _)| DeltaRow { slot, index }) });
    }
}

fn slot_of(weights: &AdapterWeights) -> AdapterSlot<'_> {
    let low_rank = weights.low_rank().map(|pair| LowRankSlot {
        a: pair.a().data(),
        b: pair.b().data(),
        rank: pair.rank(),
        scale: pair.scale(),
    });
    AdapterSlot { prompt: weights.prompt().data(), low_rank }
}
