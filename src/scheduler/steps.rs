//! Planning: who gets blocks, who is admitted, how far the cohort moves.

use super::{
    Cohort, Decode, Encode, PromptPath, Scheduler, SequenceId, StepPlan,
    prefix::{Found, Hit},
};
use crate::kv::BlockCopy;

impl Scheduler {
    /// Plans the next step into `plan`, which is empty afterwards when nothing can be done.
    pub fn plan_step(&mut self, plan: &mut StepPlan) {
        plan.clear();
        match self.config.prompts {
            PromptPath::Encoder { layers } => {
                self.reserve_rows(&mut plan.copies);
                let alone = self.decoding.is_empty();
                self.admit_to_encoder();
                plan.encode = self.advance_cohort(layers, alone);
            }
            PromptPath::Decoder => {
                self.admit_to_decoder();
                self.reserve_rows(&mut plan.copies);
            }
        }
        for &sequence in &self.decoding {
            let held = self.sequences.listed(sequence);
            let rows = held.computed..held.past.len();
            if !rows.is_empty() {
                let samples = held.request.max_tokens > 0 && rows.end == held.decoder_rows();
                let scoring = held.scoring_rows();
                let scores = scoring.start.max(rows.start)
                    ..scoring.end.min(rows.end).max(scoring.start.max(rows.start));
                plan.decode.push(Decode { sequence, rows, samples, scores });
            }
        }
    }

    /// Gives every decoding sequence the rows that its next step writes, oldest first; the newest give way. Who misses
    /// one row gets it; who misses many (a prompt, or what a preemption lost) shares what the budget leaves over.
    fn reserve_rows(&mut self, copies: &mut Vec<BlockCopy>) {
        let budget = self.config.max_batch_tokens;
        let single =
            self.decoding.iter().filter(|&&id| self.sequences.listed(id).missing_rows() <= 1).count();
        let mut spare = budget.saturating_sub(single).max(1);
        let mut index = 0;
        while let Some(&id) = self.decoding.get(index) {
            let held = self.sequences.listed(id);
            let missing = held.missing_rows();
            let rows = if missing > 1 { missing.min(spare) } else { missing };
            match self.pool.append_slots(&mut held.past, rows) {
                Ok(copy) => {
                    copies.extend(copy);
                    spare -= if missing > 1 { rows } else { 0 };
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

    /// The next in turn that has not to wait for another's rows, and the rows that it need not compute.
    fn next_waiting(&mut self) -> Option<(SequenceId, Hit)> {
        loop {
            let id = self.preempted.first().copied().or_else(|| self.queue.next())?;
            if !self.config.prefix_cache {
                return Some((id, Hit::default()));
            }
            let held = self.sequences.listed(id);
            match self.prefixes.look_up(held, &self.pool) {
                Found::Rows(hit) => return Some((id, hit)),
                Found::InWork(producer) => {
                    held.waits_for = Some(producer);
                    self.preempted.remove(&id);
                    self.queue.remove(held.ticket);
                    self.parked.entry(producer).or_default().push(id);
                }
            }
        }
    }

    /// Takes a sequence out of its queue; it starts from what it hit.
    fn admit(&mut self, id: SequenceId, hit: &Hit) {
        let held = self.sequences.listed(id);
        let table = if held.causal { &mut held.past } else { &mut held.prompt };
        self.pool.resume(table, &hit.blocks, hit.rows);
        if held.causal {
            held.computed = hit.rows;
        }
        if !self.preempted.remove(&id) {
            self.queue.admit(held.ticket, held.prompt_rows() - hit.rows.min(held.prompt_rows()));
        }
        if self.config.prefix_cache {
            self.prefixes.start(held, hit, self.pool.block_size());
            self.prefixes.sweep(&mut self.pool);
        }
    }

    /// Seats waiting sequences of a decoder-only model while seats and blocks for their whole prompts are free.
    fn admit_to_decoder(&mut self) {
        let mut promised = None;
        while self.decoding.len() < self.config.max_num_seqs
            && let Some((id, hit)) = self.next_waiting()
        {
            let rows = self.sequences.listed(id).decoder_rows();
            let needed = self.blocks_beside(&hit, rows);
            let promised = promised.get_or_insert_with(|| self.promised());
            // A free block for each sequence that runs already, so that admission does not preempt at once.
            if *promised + needed + self.decoding.len() > self.pool.free_blocks() {
                break;
            }
            // What was hit is the sequence's own from now on, and no longer among the free ones.
            *promised += needed - self.pool.idle_among(&hit.blocks);
            self.admit(id, &hit);
            self.decoding.push(id);
        }
    }

    /// Free blocks that the next rows of those that run will take.
    fn promised(&mut self) -> usize {
        let (sequences, pool) = (&mut self.sequences, &self.pool);
        let tables = self.decoding.iter().map(|&id| {
            let held = sequences.listed(id);
            pool.blocks_to_append(&held.past, held.missing_rows())
        });
        tables.sum()
    }

    /// Free blocks that a table of `rows` rows takes which starts from `hit`.
    fn blocks_beside(&self, hit: &Hit, rows: usize) -> usize {
        let idle = self.pool.idle_among(&hit.blocks);
        // An unfinished last block that others hold is copied before it is written; an idle one need not be.
        let unfinished =
            hit.blocks.last().filter(|_| !hit.rows.is_multiple_of(self.pool.block_size()) && hit.rows < rows);
        let copied = unfinished.is_some_and(|&last| self.pool.idle_among(&[last]) == 0);
        self.pool.blocks_needed(rows) - hit.blocks.len() + idle + usize::from(copied)
    }

    /// Seats waiting sequences of an encoder-decoder model: at once where the encoder's output is there already, else in a
    /// new cohort, as many as rows, seats and blocks allow.
    fn admit_to_encoder(&mut self) {
        let mut cohort: Option<Cohort> = None;
        let entering = |cohort: &Option<Cohort>| cohort.as_ref().map_or(0, |cohort| cohort.sequences.len());
        let inside = entering(&self.cohort);
        while self.decoding.len() + inside + entering(&cohort) < self.config.max_num_seqs
            && let Some((id, hit)) = self.next_waiting()
        {
            let running = self.decoding.len() + inside + entering(&cohort);
            let held = self.sequences.listed(id);
            let (prompt_rows, decoder_rows) = (held.prompt_rows(), held.decoder_rows());
            // The first decoder row is every sequence's; more are what a preemption lost.
            let work = prompt_rows - hit.rows + decoder_rows - 1;
            let rows = cohort.as_ref().map_or(0, |cohort| cohort.rows);
            let crowded = rows > 0 && rows + work > self.config.max_batch_tokens;
            let needed = self.blocks_beside(&hit, prompt_rows) + self.pool.blocks_needed(decoder_rows);
            // A free block for each sequence that runs already, so that admission does not preempt at once.
            if (hit.rows == 0 && (self.cohort.is_some() || crowded))
                || needed + running > self.pool.free_blocks()
            {
                break;
            }
            self.admit(id, &hit);
            let held = self.sequences.listed(id);
            for (table, rows) in [(&mut held.prompt, prompt_rows - hit.rows), (&mut held.past, decoder_rows)]
            {
                let copy = self.pool.append_slots(table, rows).expect("the blocks were counted just now");
                debug_assert!(
                    copy.is_none(),
                    "an empty table shares nothing, and a whole one is not written"
                );
            }
            if hit.rows > 0 {
                held.encoded = true;
                self.decoding.push(id);
                continue;
            }
            self.cohorts += usize::from(cohort.is_none()) as u64;
            let number = self.cohorts;
            let cohort = cohort.get_or_insert_with(|| Cohort {
                number,
                sequences: Vec::new(),
                rows: 0,
                next_layer: 0,
            });
            cohort.sequences.push(id);
            cohort.rows += work;
        }
        self.cohort = self.cohort.take().or(cohort);
    }

    /// Moves the cohort by some encoder blocks, by all when `alone`. At the end its sequences join those that decode.
    fn advance_cohort(&mut self, all: usize, alone: bool) -> Option<Encode> {
        let cohort = self.cohort.as_mut()?;
        let affordable = self.config.max_batch_tokens.saturating_mul(all) / cohort.rows.max(1);
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
    pub(super) fn abandon_cohort(&mut self, removed: Option<SequenceId>) {
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
        self.settle(id);
        let held = self.sequences.listed(id);
        let (prompt_rows, past_rows) = held.request.table_rows(self.config.prompts);
        let prompt = std::mem::replace(&mut held.prompt, self.pool.table(prompt_rows));
        let past = std::mem::replace(&mut held.past, self.pool.table(past_rows));
        (held.computed, held.encoded) = (0, false);
        self.preempted.insert(id);
        self.pool.release(prompt);
        self.pool.release(past);
    }
}
