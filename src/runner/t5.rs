use std::num::NonZeroUsize;

use candle_core::Tensor;

use super::{
    KvDtype, Runner, RunnerConfig, RunnerError, StepError, StepOutput,
    adapters::{Fetch, Slots},
    batch::{SampleMemory, copy_rows, read_out, slabs},
};
use crate::{
    adapter::AdapterWeights,
    backbones::t5::{DecoderBatch, T5},
    kernels::{
        RowIndices,
        dept_embed::{Adapters, DeltaRow, ResidentAdapters, ResidentUse, Row, RowTable},
        ragged_attention::{Keys, Span},
    },
    scheduler::{Decode, Encode, Sequence, SequenceId, Sequences, StepPlan},
};

/// Runs a T5 over ragged batches.
#[derive(Debug)]
pub struct T5Runner {
    model: T5,
    block_size: usize,
    /// K/V by decoder block. `(num_blocks * block_size, [k; v])`
    slabs: Vec<Tensor>,
    /// The cohort that is between two steps of the encoder.
    encoding: Option<Encoding>,
    residents: ResidentAdapters,
    rows: RowTable,
    slots: RowIndices,
    samples: SampleMemory,
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
        let samples = SampleMemory::new(model.place());
        Ok(Self {
            block_size: config.block_size.get(),
            slabs: slabs(model.place(), config, model.config().decoder_layers, model.slab_width())?,
            residents: ResidentAdapters::new(model.place(), config.adapter_bytes)?,
            model,
            encoding: None,
            rows: RowTable::default(),
            slots: RowIndices::default(),
            samples,
        })
    }

    /// Bytes of K/V that one block of `block_size` positions takes in all slabs together.
    pub fn block_bytes(model: &T5, block_size: NonZeroUsize, kv_dtype: KvDtype) -> usize {
        let row_bytes = model.slab_width() * kv_dtype.at(model.place()).size_in_bytes();
        block_size.get() * model.config().decoder_layers * row_bytes
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
        let mut slots = Slots::default();
        self.rows.clear();
        for sequence in members {
            let lease = sequence.request.adapter.as_ref();
            let adapter = lease.map(|lease| (slots.number(lease), &**lease.weights()));
            push_prompt(&mut self.rows, &sequence.request.prompt, adapter);
        }
        Ok(self.model.embed(&slots.held(&mut self.residents)?, &self.rows)?)
    }

    fn decode(
        &mut self,
        decode: &[Decode],
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), RunnerError> {
        let hidden = self.run_decoder(decode, sequences)?;
        let Self { model, samples, .. } = self;
        let eos = [model.config().eos];
        let logits = |rows: &Tensor| model.logits(rows);
        read_out(&hidden, decode, logits, (sequences, &eos), samples, output)
    }

    /// Runs the decoder over the planned rows. `(rows, hidden)`
    fn run_decoder(&mut self, decode: &[Decode], sequences: &Sequences) -> Result<Tensor, RunnerError> {
        let start = self.model.config().decoder_start;
        self.rows.clear();
        self.slots.clear();
        let (mut past, mut prompt) = (Vec::with_capacity(decode.len()), Vec::with_capacity(decode.len()));
        for planned in decode {
            let sequence =
                sequences.get(planned.sequence).ok_or(RunnerError::NoSequence(planned.sequence))?;
            let queries = self.rows.len()..self.rows.len() + planned.rows.len();
            for row in planned.rows.clone() {
                let token = if row == 0 { start } else { sequence.answer[row - 1] };
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
        let embedded = self.model.embed(&Adapters::default(), &self.rows)?; // (rows, hidden)
        let batch = DecoderBatch { past: &past, prompt: &prompt, slots: &self.slots, slabs: &self.slabs };
        Ok(self.model.decode(embedded, &batch)?)
    }
}

impl Runner for T5Runner {
    fn step(
        &mut self,
        plan: &StepPlan,
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        self.residents.begin_step();
        copy_rows(&self.slabs, &plan.copies, self.block_size).map_err(StepError::Decode)?;
        if let Some(encode) = &plan.encode {
            self.encode(encode, sequences).map_err(StepError::Encode)?;
        }
        if plan.decode.is_empty() {
            return Ok(());
        }
        self.decode(&plan.decode, sequences, output).map_err(StepError::Decode)
    }

    fn resident_use(&self) -> ResidentUse {
        self.residents.resident_use()
    }

    fn fetch(&self) -> Fetch {
        self.residents.prefetch().into()
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
    let updated = adapter.filter(|(_, weights)| weights.updates_tokens());
    for (index, &token) in (0..).zip(tokens) {
        rows.push(Row::Token { token, delta: updated.map(|(slot, _)| DeltaRow { slot, index }) });
    }
}
