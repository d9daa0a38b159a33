use std::num::NonZeroUsize;

use candle_core::Tensor;

use super::{
    KvDtype, Runner, RunnerConfig, RunnerError, StepError, StepOutput,
    adapters::{Fetch, Slots},
    batch::{SampleMemory, copy_rows, read_out, slabs},
};
use crate::{
    adapter::AdapterWeights,
    backbones::decoder::{CausalBatch, Decoder},
    kernels::{
        RowIndices,
        dept_embed::{DeltaRow, ResidentAdapters, ResidentUse, Row, RowTable},
        ragged_attention::{Keys, Span},
    },
    scheduler::{Decode, Sequence, Sequences, StepPlan},
};

/// Runs a decoder-only model over ragged batches: prompts in pieces beside sequences that generate.
#[derive(Debug)]
pub struct CausalRunner {
    model: Decoder,
    block_size: usize,
    /// K/V by block of the model. `(num_blocks * block_size, [k; v])`
    slabs: Vec<Tensor>,
    residents: ResidentAdapters,
    rows: RowTable,
    positions: RowIndices,
    slots: RowIndices,
    samples: SampleMemory,
}

impl CausalRunner {
    /// A runner with empty K/V slabs.
    ///
    /// # Errors
    /// When the slabs can't be allocated.
    pub fn new(model: Decoder, config: RunnerConfig) -> Result<Self, RunnerError> {
        let samples = SampleMemory::new(model.place());
        Ok(Self {
            block_size: config.block_size.get(),
            slabs: slabs(model.place(), config, model.layers(), model.slab_width())?,
            residents: ResidentAdapters::new(model.place(), config.adapter_bytes)?,
            model,
            rows: RowTable::default(),
            positions: RowIndices::default(),
            slots: RowIndices::default(),
            samples,
        })
    }

    /// Bytes of K/V that one block of `block_size` positions takes in all slabs together.
    pub fn block_bytes(model: &Decoder, block_size: NonZeroUsize, kv_dtype: KvDtype) -> usize {
        let row_bytes = model.slab_width() * kv_dtype.at(model.place()).size_in_bytes();
        block_size.get() * model.layers() * row_bytes
    }

    /// Runs the model over the planned rows. `(rows, hidden)`
    fn forward(&mut self, decode: &[Decode], sequences: &Sequences) -> Result<Tensor, RunnerError> {
        self.rows.clear();
        self.positions.clear();
        self.slots.clear();
        let mut adapters = Slots::default();
        let mut spans = Vec::with_capacity(decode.len());
        for planned in decode {
            let id = planned.sequence;
            let sequence = sequences.get(id).ok_or(RunnerError::NoSequence(id))?;
            let queries = self.rows.len()..self.rows.len() + planned.rows.len();
            // Generated tokens take nothing of the adapter.
            let reads_prompt = planned.rows.start < sequence.virtual_tokens() + sequence.request.prompt.len();
            let lease = sequence.request.adapter.as_ref().filter(|_| reads_prompt);
            let slot = lease.map(|lease| adapters.number(lease));
            for position in planned.rows.clone() {
                self.rows.push(row(sequence, slot, position));
                self.positions.push(position as u32);
            }
            self.slots.extend(sequence.past.slots(planned.rows.clone()).map(|slot| slot as u32));
            let keys = Keys::Blocks { blocks: sequence.past.blocks(), block_size: self.block_size };
            let (first_position, context) = (planned.rows.start, planned.rows.end);
            spans.push(Span { queries, first_position, context, keys, causal: true });
        }
        let adapters = adapters.held(&mut self.residents)?;
        let embedded = self.model.embed(&adapters, &self.rows, &self.positions)?; // (rows, hidden)
        let batch =
            CausalBatch { spans: &spans, positions: &self.positions, slots: &self.slots, slabs: &self.slabs };
        Ok(self.model.forward(embedded, &batch)?)
    }
}

/// What stands at `position`: soft prompt, then prompt, then generated text. The prompt of `n` tokens is the end of an
/// input padded on the left to `s`: its token `j` takes delta row `s - n + j`, and generated tokens take none.
fn row(sequence: &Sequence, slot: Option<u32>, position: usize) -> Row {
    let (prompt, m) = (&sequence.request.prompt, sequence.virtual_tokens());
    if let Some(slot) = slot.filter(|_| position < m) {
        return Row::Prompt { slot, index: position as u32 };
    }
    let at = position - m;
    let Some(&token) = prompt.get(at) else {
        return Row::Token { token: sequence.answer[at - prompt.len()], delta: None };
    };
    let updated = sequence
        .request
        .adapter
        .as_ref()
        .map(|lease| &**lease.weights())
        .filter(|weights| weights.updates_tokens());
    // Where there is no s, the update does not ask for the row.
    let s = |weights: &AdapterWeights| weights.max_length().unwrap_or(prompt.len());
    let delta = slot
        .zip(updated)
        .map(|(slot, weights)| DeltaRow { slot, index: (s(weights) - prompt.len() + at) as u32 });
    Row::Token { token, delta }
}

impl Runner for CausalRunner {
    fn step(
        &mut self,
        plan: &StepPlan,
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        self.residents.begin_step();
        copy_rows(&self.slabs, &plan.copies, self.block_size).map_err(StepError::Decode)?;
        let hidden = self.forward(&plan.decode, sequences).map_err(StepError::Decode)?;
        let Self { model, samples, .. } = self;
        let logits = |rows: &Tensor| model.logits(rows);
        let eos = &model.config().eos;
        read_out(&hidden, &plan.decode, logits, (sequences, eos), samples, output).map_err(StepError::Decode)
    }

    fn resident_use(&self) -> ResidentUse {
        self.residents.resident_use()
    }

    fn fetch(&self) -> Fetch {
        self.residents.prefetch().into()
    }
}
