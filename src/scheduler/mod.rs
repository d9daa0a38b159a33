//! Which sequences work in the next step. Pure book-keeping: no tensors, no clock, no I/O.
//!
//! With an encoder, prompts enter in *cohorts*: waiting sequences of up to `max_batch_tokens` rows pass the encoder
//! together in one step; a single longer prompt is a cohort too, and while others decode it moves by only as many blocks
//! a step as its rows allow. Without one, a prompt is a decode of many rows, in pieces of what `max_batch_tokens` leaves
//! over. Either way every sequence that generates gets its row in every step. K/V blocks are taken as needed; when they
//! run out, the newest sequence gives its blocks back and is computed again later, before anyone new. A sequence that fits
//! the pool alone always ends: the oldest one is never preempted.
//!
//! Who enters next is the queue's to say (`queue.rs`); rows that are in the pool already are not computed again
//! (`prefix.rs`), and who begins with rows that a running sequence is computing waits for those.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroUsize,
};

use prefix::{PrefixCache, PrefixKeys};
use queue::FairQueue;

use crate::{domain::FinishReason, kv::BlockPool};

mod plan;
mod prefix;
mod queue;
mod sequence;
mod steps;

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
    /// Most prompt rows of a cohort, most that pass the whole encoder in a step while others decode, and most rows of a
    /// decoder's step (one for each sequence that decodes always passes).
    pub max_batch_tokens: usize,
    /// How prompts enter the model.
    pub prompts: PromptPath,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Whether K/V rows that are in the pool already are used again.
    pub prefix_cache: bool,
}

/// What a generated token counts in fairness beside a prompt row's 1: a decode reads all weights for one row.
const GENERATED: usize = 2;

/// How prompts enter the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptPath {
    /// Through an encoder of so many blocks; the decoder starts from nothing and reads the prompt's K/V (T5).
    Encoder {
        /// Encoder blocks of the model.
        layers: usize,
    },
    /// Through the decoder itself, in pieces of any length; text continues the prompt (GPT-2, Llama).
    Decoder,
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
    /// Who has not run yet.
    queue: FairQueue,
    /// Who ran and had to give its blocks back: goes before all that are in the queue.
    preempted: BTreeSet<SequenceId>,
    /// Who waits for a running sequence's rows, by that sequence.
    parked: HashMap<SequenceId, Vec<SequenceId>>,
    prefixes: PrefixCache,
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
            queue: FairQueue::default(),
            preempted: BTreeSet::new(),
            parked: HashMap::new(),
            prefixes: PrefixCache::default(),
            cohort: None,
            cohorts: 0,
            decoding: Vec::new(),
            preemptions: 0,
            config,
        }
    }

    /// Queues a sequence.
    ///
    /// # Errors
    /// When it could not run even alone.
    pub fn add(&mut self, request: NewSequence) -> Result<(), NeverFits> {
        let (rows, past_rows) = request.table_rows(self.config.prompts);
        let needed = self.pool.blocks_needed(rows).saturating_add(self.pool.blocks_needed(past_rows));
        // Before a table makes room for it: the request says how long, and it may say anything.
        if needed > self.pool.num_blocks() {
            return Err(NeverFits { needed, pool: self.pool.num_blocks() });
        }
        let path = self.config.prompts;
        let size = self.config.block_size.get();
        let keys = if self.config.prefix_cache {
            PrefixKeys::of(&request, path, size)
        } else {
            PrefixKeys::default()
        };
        let adapter = request.adapter.as_ref().map(|lease| lease.name());
        let ticket =
            self.queue.join(request.id, (&request.tenant, request.weight), adapter, request.priority);
        let tables = (self.pool.table(rows), self.pool.table(past_rows));
        let causal = path == PromptPath::Decoder;
        self.sequences.insert(Sequence::new(request, causal, keys, ticket, tables));
        self.queue.push(ticket);
        Ok(())
    }

    /// Records that a step has computed what was planned. [`Scheduler::commit`] comes after it.
    pub fn advance(&mut self, plan: &StepPlan) {
        for &id in plan.encode.iter().filter(|encode| encode.last).flat_map(|encode| &encode.sequences) {
            self.keep_prefix(id, true);
        }
        for planned in &plan.decode {
            let Some(sequence) = self.sequences.get_mut(planned.sequence) else { continue };
            sequence.computed = planned.rows.end;
            sequence.scored_until = sequence.scored_until.max(planned.scores.end);
            if sequence.causal {
                let (before, after) = (planned.rows.start, planned.rows.end);
                let done = sequence.prompt_rows();
                self.keep_prefix(planned.sequence, before < done && after >= done);
            }
        }
    }

    /// Lets others use what a sequence has computed; nobody waits for it once its prompt is `done`.
    fn keep_prefix(&mut self, id: SequenceId, done: bool) {
        if !self.config.prefix_cache {
            return;
        }
        let Some(sequence) = self.sequences.get_mut(id) else { return };
        self.prefixes.name(sequence, &mut self.pool);
        if done {
            self.settle(id);
        }
    }

    /// Nobody waits for this one any more.
    fn settle(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get(id) else { return };
        self.prefixes.settle(sequence);
        for waiting in self.parked.remove(&id).into_iter().flatten() {
            let held = self.sequences.listed(waiting);
            held.waits_for = None;
            if held.cached.is_some() {
                self.preempted.insert(waiting);
            } else {
                self.queue.push(held.ticket);
            }
        }
    }

    /// Records the token that a planned decode chose. Returns why the sequence ends with it, if it does; an end token
    /// is not part of the text. An ended sequence stays until [`Scheduler::remove`].
    pub fn commit(&mut self, id: SequenceId, token: u32) -> Option<FinishReason> {
        let sequence = self.sequences.get_mut(id)?;
        if self.config.eos.contains(&token) {
            return Some(FinishReason::Stop);
        }
        sequence.answer.push(token);
        self.queue.charge(sequence.ticket, GENERATED);
        (sequence.generated() >= sequence.request.max_tokens).then_some(FinishReason::Length)
    }

    /// Forgets a sequence, wherever it is, and frees its blocks. Returns it without blocks.
    pub fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        self.settle(id);
        let mut sequence = self.sequences.remove(id)?;
        self.queue.remove(sequence.ticket);
        self.queue.leave(sequence.ticket);
        self.preempted.remove(&id);
        if let Some(group) = sequence.waits_for.and_then(|producer| self.parked.get_mut(&producer)) {
            group.retain(|&waiting| waiting != id);
        }
        self.decoding.retain(|&decoding| decoding != id);
        // A cohort that lives longer than a step is one long prompt; were it more, the rows that the runner holds side by
        // side could not go on without one of them.
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
        self.queue.len() + self.preempted.len() + self.parked.values().map(Vec::len).sum::<usize>()
    }

    /// Sequences that are being encoded or decoded.
    pub fn running(&self) -> usize {
        self.decoding.len() + self.cohort.as_ref().map_or(0, |cohort| cohort.sequences.len())
    }

    /// Used K/V blocks over all K/V blocks, 0 to 1.
    pub fn kv_usage(&self) -> f64 {
        self.pool.used_blocks() as f64 / self.pool.num_blocks().max(1) as f64
    }

    /// Prompt rows that were looked up in the prefix cache since the start, and those of them that were found.
    pub fn prefix_rows(&self) -> (u64, u64) {
        (self.prefixes.queries, self.prefixes.hits)
    }

    /// How often a sequence has given its blocks back since the start.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    fn release_blocks(&mut self, sequence: &mut Sequence) {
        for table in [&mut sequence.prompt, &mut sequence.past] {
            let table = std::mem::replace(table, self.pool.table(0));
            self.pool.release(table);
        }
    }
}
