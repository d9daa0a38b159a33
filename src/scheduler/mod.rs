//! Which sequences work in the next step. Pure book-keeping: no tensors, no clock, no I/O.
//!
//! Prompts enter in *cohorts*: waiting sequences of up to `max_batch_tokens` rows pass the encoder together in one step. A
//! single longer prompt is a cohort too; while others decode it moves by only as many blocks a step as its rows allow.
//! Every sequence that is through decodes in every step. K/V blocks are
//! taken as needed; when they run out, the newest sequence gives its blocks back and is computed again later. A sequence
//! that fits the pool alone always ends: the oldest one is never preempted.

use std::{cmp::Reverse, collections::BTreeSet, num::NonZeroUsize};

use crate::{domain::FinishReason, kv::BlockPool};

mod plan;
mod sequence;

pub use plan::{Decode, Encode, StepPlan};
pub use sequence::{NewSequence, Sequence, SequenceId, Sequences};

#[cfg(test)]
mod tests;

/// What the scheduler must know of model and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Blocks in the K/V pool.
    pub num_blocks: u32,
    /// Positions a block.
    pub block_size: NonZeroUsize,
    /// Most sequences that are encoded or decoded at once.
    pub max_num_seqs: usize,
    /// Most prompt rows of a cohort, and most that pass the whole encoder in a step while others decode.
    pub max_batch_tokens: usize,
    /// Encoder blocks of the model.
    pub encoder_layers: usize,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// A sequence that could not run even alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sequence needs {needed} K/V blocks and the pool has {pool}")]
pub struct NeverFits {
    /// Blocks that it needs at its longest.
    pub needed: usize,
    /// Blocks in the pool.
    pub pool: usize,
}

/// Prompts on their way through the encoder.
#[derive(Debug)]
struct Cohort {
    number: u64,
    sequences: Vec<SequenceId>,
    rows: usize,
    next_layer: usize,
}

/// Plans steps and keeps account of every sequence and block.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pool: BlockPool,
    sequences: Sequences,
    /// By priority, then in order of arrival.
    waiting: BTreeSet<(Reverse<i32>, SequenceId)>,
    cohort: Option<Cohort>,
    cohorts: u64,
    /// Oldest admission first.
    decoding: Vec<SequenceId>,
    preemptions: u64,
}

impl Scheduler {
    /// A scheduler without sequences.
    pub fn new(config: SchedulerConfig) -> Self {
        Self {
            pool: BlockPool::new(config.num_blocks, config.block_size),
            sequences: Sequences::default(),
            waiting: BTreeSet::new(),
            cohort: None,
            cohorts: 0,
            decoding: Vec::with_capacity(config.max_num_seqs),
            preemptions: 0,
            config,
        }
    }

    /// Queues a sequence.
    ///
    /// # Errors
    /// When it could not run even alone.
    pub fn add(&mut self, request: NewSequence) -> Result<(), NeverFits> {
        let (rows, past_rows) = (request.prompt_rows(), request.max_tokens);
        let needed = self.pool.blocks_needed(rows).saturating_add(self.pool.blocks_needed(past_rows));
        // Before a table makes room for it: the request says how long, and it may say anything.
        if needed > self.pool.num_blocks() {
            return Err(NeverFits { needed, pool: self.pool.num_blocks() });
        }
        let sequence = Sequence::new(request, self.pool.table(rows), self.pool.table(past_rows));
        self.waiting.insert((Reverse(sequence.request.priority), sequence.request.id));
        self.sequences.insert(sequence);
        Ok(())
    }

    /// Plans the next step into `plan`, which is empty afterwards when nothing can be done.
    pub fn plan_step(&mut self, plan: &mut StepPlan) {
        plan.clear();
        self.reserve_decode_rows();
        let decoding_before = self.decoding.len();
        if self.cohort.is_none() {
            self.cohort = self.admit();
        }
        plan.encode = self.advance_cohort(decoding_before == 0);
        plan.decode.extend(self.decoding.iter().map(|&sequence| {
            let held = self.sequences.listed(sequence);
            Decode { sequence, rows: held.computed..held.decoder_rows() }
        }));
    }

    /// Records the token that a planned decode chose. Returns why the sequence ends with it, if it does; an end token
    /// is not part of the text. An ended sequence stays until [`Scheduler::remove`].
    pub fn commit(&mut self, id: SequenceId, token: u32) -> Option<FinishReason> {
        let sequence = self.sequences.get_mut(id)?;
        sequence.computed = sequence.decoder_rows();
        if self.config.eos.contains(&token) {
            return Some(FinishReason::Stop);
        }
        sequence.generated.push(token);
        (sequence.generated.len() >= sequence.request.max_tokens).then_some(FinishReason::Length)
    }

    /// Forgets a sequence, wherever it is, and frees its blocks. Returns it without blocks.
    pub fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        let mut sequence = self.sequences.remove(id)?;
        self.waiting.remove(&(Reverse(sequence.request.priority), id));
        self.decoding.retain(|&decoding| decoding != id);
        // The runner holds the rows of a cohort side by side: without one of its members it starts again.
        if self.cohort.as_ref().is_some_and(|cohort| cohort.sequences.contains(&id)) {
            self.abandon_cohort(Some(id));
        }
        self.release_blocks(&mut sequence);
        Some(sequence)
    }

    /// The live sequences.
    pub fn sequences(&mut self) -> &mut Sequences {
        &mut self.sequences
    }

    /// Sequences that wait for their first or next admission.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences that are being encoded or decoded.
    pub fn running(&self) -> usize {
        self.decoding.len() + self.cohort.as_ref().map_or(0, |cohort| cohort.sequences.len())
    }

    /// Used K/V blocks over all K/V blocks, 0 to 1.
    pub fn kv_usage(&self) -> f64 {
        self.pool.used_blocks() as f64 / self.pool.num_blocks().max(1) as f64
    }

    /// How often a sequence has given its blocks back since the start.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Gives every decoding sequence the rows that its next step writes, oldest first; the newest give way.
    fn reserve_decode_rows(&mut self) {
        let mut index = 0;
        while let Some(&id) = self.decoding.get(index) {
            let held = self.sequences.listed(id);
            let missing = held.decoder_rows() - held.past.len();
            match self.pool.append_slots(&mut held.past, missing) {
                Ok(copy) => {
                    debug_assert!(copy.is_none(), "a decoder's own blocks are not shared");
                    index += 1;
                }
                Err(_) if self.cohort.is_some() => self.abandon_cohort(None),
                Err(_) => {
                    // The newest may be this one: then the loop ends here.
                    let newest = self.decoding.pop().expect("a sequence is being looked at");
                    self.preempt(newest);
                }
            }
        }
    }

    /// Takes waiting sequences for a new cohort, as many as rows, seats and blocks allow.
    fn admit(&mut self) -> Option<Cohort> {
        let mut sequences = Vec::new();
        let mut rows = 0;
        while let Some(&entry) = self.waiting.first() {
            let running = self.decoding.len() + sequences.len();
            let held = self.sequences.listed(entry.1);
            let prompt_rows = held.prompt_rows();
            let decoder_rows = held.decoder_rows();
            let full = running >= self.config.max_num_seqs
                || (!sequences.is_empty() && rows + prompt_rows > self.config.max_batch_tokens);
            let needed = self.pool.blocks_needed(prompt_rows) + self.pool.blocks_needed(decoder_rows);
            // A free block for each sequence that runs already, so that admission does not preempt at once.
            if full || needed + running > self.pool.free_blocks() {
                break;
            }
            for (table, rows) in [(&mut held.prompt, prompt_rows), (&mut held.past, decoder_rows)] {
                let copy = self.pool.append_slots(table, rows).expect("the blocks were counted just now");
                debug_assert!(copy.is_none(), "an empty table shares nothing");
            }
            self.waiting.remove(&entry);
            sequences.push(entry.1);
            rows += prompt_rows;
        }
        if sequences.is_empty() {
            return None;
        }
        self.cohorts += 1;
        Some(Cohort { number: self.cohorts, sequences, rows, next_layer: 0 })
    }

    /// Moves the cohort by some encoder blocks, by all when `alone`. At the end its sequences join those that decode.
    fn advance_cohort(&mut self, alone: bool) -> Option<Encode> {
        let cohort = self.cohort.as_mut()?;
        let all = self.config.encoder_layers;
        let affordable = self.config.max_batch_tokens * all / cohort.rows.max(1);
        let count = if alone { all } else { affordable.max(1) };
        let layers = cohort.next_layer..(cohort.next_layer + count).min(all);
        cohort.next_layer = layers.end;
        let last = layers.end == all;
        let encode = Encode { cohort: cohort.number, sequences: cohort.sequences.clone(), layers, last };
        if last {
            for &id in &encode.sequences {
                self.sequences.listed(id).encoded = true;
            }
            self.decoding.extend_from_slice(&encode.sequences);
            self.cohort = None;
        }
        Some(encode)
    }

    /// Sends the cohort's sequences, without `removed`, back to wait.
    fn abandon_cohort(&mut self, removed: Option<SequenceId>) {
        let Some(cohort) = self.cohort.take() else { return };
        for id in cohort.sequences {
            if Some(id) != removed {
                self.preempt(id);
            }
        }
    }

    /// Takes a sequence's blocks; its tokens are kept and computed again when it is its turn.
    fn preempt(&mut self, id: SequenceId) {
        self.preemptions += 1;
        let held = self.sequences.listed(id);
        let (prompt_rows, past_rows) = (held.prompt_rows(), held.request.max_tokens);
        let prompt = std::mem::replace(&mut held.prompt, self.pool.table(prompt_rows));
        let past = std::mem::replace(&mut held.past, self.pool.table(past_rows));
        (held.computed, held.encoded) = (0, false);
        self.waiting.insert((Reverse(held.request.priority), id));
        self.pool.release(prompt);
        self.pool.release(past);
    }

    fn release_blocks(&mut self, sequence: &mut Sequence) {
        for table in [&mut sequence.prompt, &mut sequence.past] {
            let table = std::mem::replace(table, self.pool.table(0));
            self.pool.release(table);
        }
    }
}
