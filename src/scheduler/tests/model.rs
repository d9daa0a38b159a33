//! A model of a runner: what a slab holds decides the tokens, so that a block that two sequences share, a row that was
//! not computed again or a table that does not cover its rows changes an answer.

use std::collections::{BTreeMap, HashSet};

use super::*;

/// What one sequence asks for and must get.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub prompt: usize,
    pub max_tokens: usize,
    /// The end token comes after so many tokens.
    pub ends_at: usize,
    pub priority: i32,
}

impl Job {
    fn blocks(&self, block_size: usize) -> usize {
        self.prompt.div_ceil(block_size) + self.max_tokens.div_ceil(block_size)
    }

    fn ends(&self) -> (usize, FinishReason) {
        if self.ends_at < self.max_tokens {
            (self.ends_at, FinishReason::Stop)
        } else {
            (self.max_tokens, FinishReason::Length)
        }
    }

    /// The answer, worked out without blocks.
    fn answer(&self, id: SequenceId) -> Vec<u32> {
        let mut tokens = Vec::new();
        for _ in 0..self.ends().0 {
            let prompt = (0..self.prompt).map(|position| prompt_row(id, position));
            let starts = std::iter::once(EOS + 1).chain(tokens.iter().copied());
            let past = starts.enumerate().map(|(position, token)| past_row(id, position, token));
            tokens.push(choose(prompt.chain(past)));
        }
        tokens
    }
}

fn mix(values: [u64; 4]) -> u64 {
    values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, value| (hash ^ value).wrapping_mul(0x100_0000_01b3))
}

fn prompt_row(id: SequenceId, position: usize) -> u64 {
    mix([id.0, 1, position as u64, 0])
}

fn past_row(id: SequenceId, position: usize, token: u32) -> u64 {
    mix([id.0, 2, position as u64, token.into()])
}

fn choose(rows: impl Iterator<Item = u64>) -> u32 {
    let seen = rows.fold(7_u64, |hash, row| hash.rotate_left(5).wrapping_add(row));
    (seen >> 20) as u32 % 1000 + 10
}

/// A scheduler, the memory that its plans write, and what the plans must keep to.
pub(super) struct World {
    scheduler: Scheduler,
    config: SchedulerConfig,
    plan: StepPlan,
    slab: Vec<u64>,
    jobs: BTreeMap<SequenceId, Job>,
    /// Live sequences of the last step's decodes, oldest admission first.
    decoding: Vec<SequenceId>,
    /// The cohort between two steps of the encoder, and its next block.
    encoding: Option<(Encode, usize)>,
    last_cohort: u64,
    next_id: u64,
}

impl World {
    pub fn new(config: SchedulerConfig) -> Self {
        let rows = config.num_blocks as usize * config.block_size.get();
        Self {
            scheduler: Scheduler::new(config.clone()),
            config,
            plan: StepPlan::default(),
            slab: vec![0; rows],
            jobs: BTreeMap::new(),
            decoding: Vec::new(),
            encoding: None,
            last_cohort: 0,
            next_id: 0,
        }
    }

    /// Adds a sequence; it is refused exactly when it exceeds the pool.
    pub fn add(&mut self, job: Job) {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let needed = job.blocks(self.config.block_size.get());
        let pool = self.config.num_blocks as usize;
        let priority = job.priority;
        let added = self.scheduler.add(NewSequence { priority, ..request(id.0, job.prompt, job.max_tokens) });
        if needed > pool {
            assert_eq!(added, Err(NeverFits { needed, pool }));
        } else {
            assert_eq!(added, Ok(()));
            self.jobs.insert(id, job);
        }
        self.check_accounts();
    }

    pub fn cancel(&mut self, index: usize) {
        let Some(&id) = self.jobs.keys().nth(index % self.jobs.len().max(1)) else { return };
        self.remove(id);
        if self.encoding.as_ref().is_some_and(|(encode, _)| encode.sequences.contains(&id)) {
            self.encoding = None;
        }
        self.check_accounts();
    }

    pub fn step(&mut self) {
        let preempted = self.scheduler.preemptions();
        self.scheduler.plan_step(&mut self.plan);
        let plan = std::mem::take(&mut self.plan);
        assert_eq!(plan.decode.is_empty(), self.jobs.is_empty(), "every step brings somebody a token");
        self.check_order(&plan);
        if let Some(encode) = &plan.encode {
            self.encode(encode, preempted);
        } else if self.encoding.take().is_some() {
            assert!(self.scheduler.preemptions() > preempted, "a cohort is given up for memory only");
        }
        self.check_decoding(&plan);
        self.check_accounts();
        let tokens: Vec<u32> = plan.decode.iter().map(|decode| self.compute(decode)).collect();
        self.scheduler.advance(&plan);
        for (decode, token) in plan.decode.iter().zip(tokens) {
            self.commit(decode.sequence, token);
        }
        self.decoding = plan.decode.iter().map(|decode| decode.sequence).collect();
        self.decoding.retain(|id| self.jobs.contains_key(id));
        self.plan = plan;
        self.check_accounts();
    }

    /// Steps until all sequences have ended; each step brings at least one token, so their number is bounded.
    pub fn finish(&mut self) {
        let tokens: usize = self.jobs.values().map(|job| job.max_tokens).sum();
        for _ in 0..tokens {
            self.step();
        }
        assert!(self.jobs.is_empty(), "every sequence ends");
        self.step();
        assert!(self.plan.is_empty() && self.scheduler.sequences().is_empty());
        assert_eq!(self.scheduler.pool.free_blocks(), self.config.num_blocks as usize);
        assert_eq!((self.scheduler.running(), self.scheduler.waiting()), (0, 0));
    }

    pub fn preemptions(&self) -> u64 {
        self.scheduler.preemptions()
    }

    fn remove(&mut self, id: SequenceId) {
        self.jobs.remove(&id);
        self.decoding.retain(|&decoding| decoding != id);
        let removed = self.scheduler.remove(id).unwrap();
        assert!(removed.prompt.blocks().is_empty() && removed.past.blocks().is_empty());
    }

    /// Who starts goes before all who wait: by priority, then by arrival.
    fn check_order(&mut self, plan: &StepPlan) {
        let Some(encode) = plan.encode.as_ref().filter(|encode| encode.layers.start == 0) else { return };
        let key = |id: &SequenceId| (Reverse(self.jobs[id].priority), *id);
        assert!(encode.sequences.is_sorted_by_key(key));
        let planned: HashSet<SequenceId> = plan.sequences().collect();
        let next = self.jobs.keys().filter(|id| !planned.contains(id)).map(key).min();
        let last = encode.sequences.iter().map(key).max();
        assert!(next.is_none() || last < next, "{next:?} waits while {last:?} enters");
    }

    fn encode(&mut self, encode: &Encode, preempted: u64) {
        let PromptPath::Encoder { layers: all } = self.config.prompts else { panic!("there is an encoder") };
        let rows: usize = encode.sequences.iter().map(|id| self.jobs[id].prompt).sum();
        let budget = self.config.max_batch_tokens;
        assert!(rows <= budget || encode.sequences.len() == 1, "{rows} rows enter together");
        if !self.decoding.is_empty() {
            let work = rows * encode.layers.len();
            assert!(work <= budget * all || encode.layers.len() == 1, "the encoder stalls who decodes");
        }
        match self.encoding.take() {
            Some((former, next)) if former.cohort == encode.cohort => {
                assert_eq!((&former.sequences, next), (&encode.sequences, encode.layers.start));
            }
            former => {
                assert!(former.is_none() || self.scheduler.preemptions() > preempted);
                assert!(encode.cohort > self.last_cohort && encode.layers.start == 0);
            }
        }
        assert!(!encode.layers.is_empty() && encode.layers.end <= all);
        assert_eq!(encode.last, encode.layers.end == all);
        self.last_cohort = encode.cohort;
        if !encode.last {
            assert_eq!(encode.sequences.len(), 1, "a cohort within the budget passes in one step");
            self.encoding = Some((encode.clone(), encode.layers.end));
            return;
        }
        for &id in &encode.sequences {
            let table = &self.scheduler.sequences.get(id).unwrap().prompt;
            assert_eq!(table.len(), self.jobs[&id].prompt);
            for (position, slot) in table.slots(0..table.len()).enumerate() {
                self.slab[slot] = prompt_row(id, position);
            }
        }
    }

    /// Who decoded goes on, in the order of admission; only the newest were sent back, and never the oldest.
    fn check_decoding(&mut self, plan: &StepPlan) {
        let now: Vec<SequenceId> = plan.decode.iter().map(|decode| decode.sequence).collect();
        let entered: &[SequenceId] =
            plan.encode.as_ref().filter(|encode| encode.last).map_or(&[], |encode| &encode.sequences);
        let (survivors, new) = now.split_at(now.len() - entered.len());
        assert_eq!(new, entered, "who is through the encoder decodes at once, behind the others");
        assert!(self.decoding.starts_with(survivors));
        assert!(survivors.first() == self.decoding.first(), "the oldest is never preempted");
        let running = self.scheduler.running();
        let inside = self.encoding.as_ref().map_or(0, |(encode, _)| encode.sequences.len());
        assert_eq!(running, now.len() + inside);
        assert!(running <= self.config.max_num_seqs);
    }

    fn commit(&mut self, id: SequenceId, token: u32) {
        let Some(found) = self.scheduler.commit(id, token) else { return };
        let (job, generated) = (&self.jobs[&id], &self.scheduler.sequences.get(id).unwrap().generated);
        assert_eq!((generated.len(), found), job.ends());
        assert_eq!(generated, &job.answer(id), "{id:?} answers as it would alone");
        self.remove(id);
    }

    /// Writes a decode's rows and chooses its token from all that it sees.
    fn compute(&mut self, planned: &Decode) -> u32 {
        let id = planned.sequence;
        let sequence = self.scheduler.sequences.get(id).unwrap();
        assert!(sequence.encoded);
        assert_eq!(planned.rows, sequence.computed..sequence.generated.len() + 1);
        assert_eq!(sequence.past.len(), planned.rows.end);
        let token = |row: usize| if row == 0 { EOS + 1 } else { sequence.generated[row - 1] };
        for (row, slot) in planned.rows.clone().zip(sequence.past.slots(planned.rows.clone())) {
            self.slab[slot] = past_row(id, row, token(row));
        }
        let job = &self.jobs[&id];
        let prompt = sequence.prompt.slots(0..job.prompt);
        let read = prompt.chain(sequence.past.slots(0..planned.rows.end)).map(|slot| self.slab[slot]);
        if sequence.generated.len() == job.ends_at { EOS } else { choose(read) }
    }

    /// A block is in one table, and every block is in a table or free; every live sequence is counted once.
    fn check_accounts(&mut self) {
        let mut held = HashSet::new();
        for &id in self.jobs.keys() {
            let sequence = self.scheduler.sequences.get(id).unwrap();
            for block in sequence.prompt.blocks().iter().chain(sequence.past.blocks()) {
                assert!(held.insert(*block), "{block:?} is in two tables");
            }
        }
        assert_eq!(held.len(), self.scheduler.pool.used_blocks());
        assert_eq!(self.scheduler.sequences.len(), self.jobs.len());
        assert_eq!(self.scheduler.running() + self.scheduler.waiting(), self.jobs.len());
    }
}
