//! Planning: who gets blocks, who is admitted, how far the cohort moves.

use std::cmp::Reverse;

use super::{Cohort, Decode, Encode, PromptPath, Scheduler, SequenceId, StepPlan};

impl Scheduler {
    /// Plans the next step into `plan`, which is empty afterwards when nothing can be done.
    pub fn plan_step(&mut self, plan: &mut StepPlan) {
        plan.clear();
        match self.config.prompts {
            PromptPath::Encoder { layers } => {
                self.reserve_rows();
                let alone = self.decoding.is_empty();
                if self.cohort.is_none() {
                    self.cohort = self.admit_cohort();
                }
                plan.encode = self.advance_cohort(layers, alone);
            }
            PromptPath::Decoder => {
                self.admit_prompts();
                self.reserve_rows();
            }
        }
        for &sequence in &self.decoding {
            let held = self.sequences.listed(sequence);
            let rows = held.computed..held.past.len();
            if !rows.is_empty() {
                plan.decode.push(Decode { sequence, samples: rows.end == held.decoder_rows(), rows });
            }
        }
    }

    /// Gives every decoding sequence the rows that its next step writes, oldest first; the newest give way. Who misses
    /// one row gets it; who misses many (a prompt, or what a preemption lost) shares what the budget leaves over.
    fn reserve_rows(&mut self) {
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
                    debug_assert!(copy.is_none(), "a decoder's own blocks are not shared");
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

    /// Seats waiting sequences of a decoder-only model while seats and blocks for their whole prompts are free.
    fn admit_prompts(&mut self) {
        let promised = |scheduler: &mut Self| -> usize {
            let tables = scheduler.decoding.iter().map(|&id| {
                let held = scheduler.sequences.listed(id);
                scheduler.pool.blocks_to_append(&held.past, held.missing_rows())
            });
            tables.sum()
        };
        let mut promised = promised(self);
        while let Some(&entry) = self.waiting.first() {
            let running = self.decoding.len();
            let needed = self.pool.blocks_needed(self.sequences.listed(entry.1).decoder_rows());
            // A free block for each sequence that runs already, so that admission does not preempt at once.
            if running >= self.config.max_num_seqs || promised + needed + running > self.pool.free_blocks() {
                break;
            }
            promised += needed;
            self.waiting.remove(&entry);
            self.decoding.push(entry.1);
        }
    }

    /// Takes waiting sequences for a new cohort, as many as rows, seats and blocks allow.
    fn admit_cohort(&mut self) -> Option<Cohort> {
        let mut sequences = Vec::new();
        let mut rows = 0;
        while let Some(&entry) = self.waiting.first() {
            let running = self.decoding.len() + sequences.len();
            let held = self.sequences.listed(entry.1);
            let prompt_rows = held.prompt_rows();
            let decoder_rows = held.decoder_rows();
            // The first decoder row is every sequence's; more are what a preemption lost.
            let work = prompt_rows + decoder_rows - 1;
            let full = running >= self.config.max_num_seqs
                || (!sequences.is_empty() && rows + work > self.config.max_batch_tokens);
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
            rows += work;
        }
        if sequences.is_empty() {
            return None;
        }
        self.cohorts += 1;
        Some(Cohort { number: self.cohorts, sequences, rows, next_layer: 0 })
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
        let held = self.sequences.listed(id);
        let (prompt_rows, past_rows) = held.request.table_rows(self.config.prompts);
        let prompt = std::mem::replace(&mut held.prompt, self.pool.table(prompt_rows));
        let past = std::mem::replace(&mut held.past, self.pool.table(past_rows));
        (held.computed, held.encoded) = (0, false);
        self.waiting.insert((Reverse(held.request.priority), id));
        self.pool.release(prompt);
        self.pool.release(past);
    }
}
