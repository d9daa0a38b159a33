//! A model of a runner: what a slab holds decides the tokens, so that a block that should not be shared, a row that was not
//! computed or copied, or a table that does not cover its rows changes an answer.

use std::collections::{BTreeMap, HashSet};

use super::*;

/// What one sequence asks for and must get.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// 0 is the default tenant.
    pub tenant: usize,
    /// In [`leases`]; 0 is the bare backbone.
    pub adapter: usize,
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    /// The end token comes after so many tokens.
    pub ends_at: usize,
    pub priority: i32,
}

/// No adapter, a soft prompt of 5 rows, and DePT with m = 3 and s = 40.
pub(super) fn leases() -> &'static [Option<AdapterLease>; 3] {
    static LEASES: LazyLock<[Option<AdapterLease>; 3]> =
        LazyLock::new(|| [None, Some(lease("pt", 5, None)), Some(lease("dept", 3, Some(40)))]);
    &LEASES
}

impl Job {
    fn lease(&self) -> Option<&'static AdapterLease> {
        leases()[self.adapter].as_ref()
    }

    fn virtual_tokens(&self) -> usize {
        self.lease().map_or(0, |lease| lease.weights().prompt_length())
    }

    fn rows(&self) -> usize {
        self.virtual_tokens() + self.prompt.len()
    }

    fn blocks(&self, path: PromptPath, size: usize) -> usize {
        match path {
            PromptPath::Encoder { .. } => self.rows().div_ceil(size) + self.max_tokens.div_ceil(size),
            PromptPath::Decoder => (self.rows() + self.max_tokens).div_ceil(size),
        }
    }

    fn request(&self, id: SequenceId) -> NewSequence {
        NewSequence {
            tenant: ["default", "other"][self.tenant].parse().unwrap(),
            adapter: self.lease().cloned(),
            prompt: self.prompt.clone(),
            priority: self.priority,
            ..request(id.0, 1, self.max_tokens)
        }
    }

    fn ends(&self) -> (usize, FinishReason) {
        if self.ends_at < self.max_tokens {
            (self.ends_at, FinishReason::Stop)
        } else {
            (self.max_tokens, FinishReason::Length)
        }
    }

    /// What stands in decoder row `row`, before anything is computed from it.
    fn content(&self, path: PromptPath, generated: &[u32], row: usize) -> u64 {
        if let PromptPath::Encoder { .. } = path {
            return if row == 0 { 0 } else { generated[row - 1].into() };
        }
        let (m, n) = (self.virtual_tokens(), self.prompt.len());
        if row < m {
            return mix([1, self.adapter as u64, row as u64, 0]);
        }
        let s = self.lease().and_then(|lease| lease.weights().max_length());
        match self.prompt.get(row - m) {
            Some(&token) => mix([2, token.into(), s.map_or(0, |s| s - n + row - m) as u64, 0]),
            None => mix([2, generated[row - m - n].into(), 0, 0]),
        }
    }

    /// Rows of the encoder's output: each depends on the whole prompt.
    fn encoded(&self) -> impl Iterator<Item = u64> {
        let whole =
            self.prompt.iter().fold(self.adapter as u64, |hash, &token| mix([3, hash, token.into(), 0]));
        (0..self.rows() as u64).map(move |row| mix([4, whole, row, 0]))
    }

    /// The answer, worked out without blocks.
    fn answer(&self, path: PromptPath) -> Vec<u32> {
        let (mut generated, mut seen) = (Vec::new(), Vec::new());
        let first = match path {
            PromptPath::Encoder { .. } => {
                seen.extend(self.encoded());
                1
            }
            PromptPath::Decoder => self.rows(),
        };
        let cross = seen.len();
        while generated.len() < self.ends().0 {
            for row in seen.len() - cross..first + generated.len() {
                seen.push(computed(self.content(path, &generated, row), &seen));
            }
            generated.push(choose(&seen));
        }
        generated
    }
}

fn mix(values: [u64; 4]) -> u64 {
    values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, value| {
        (hash ^ value).wrapping_mul(0x100_0000_01b3).rotate_left(29)
    })
}

/// A row's K/V: of what stands in it and all that it sees.
fn computed(content: u64, seen: &[u64]) -> u64 {
    seen.iter().fold(mix([5, content, seen.len() as u64, 0]), |hash, &row| mix([hash, row, 0, 0]))
}

fn choose(seen: &[u64]) -> u32 {
    (computed(0, seen) >> 20) as u32 % 1000 + 10
}

/// A scheduler, the memory that its plans write, and what the plans must keep to.
pub(super) struct World {
    scheduler: Scheduler,
    config: SchedulerConfig,
    plan: StepPlan,
    /// A row's value and, of text, the tenant that it is of.
    slab: Vec<(u64, Option<usize>)>,
    jobs: BTreeMap<SequenceId, Job>,
    /// Live sequences of the last step's decodes, oldest admission first.
    decoding: Vec<SequenceId>,
    /// The cohort between two steps of the encoder, and its next block.
    encoding: Option<(Encode, usize)>,
    last_cohort: u64,
    next_id: u64,
    /// Rows that were computed.
    pub computed: usize,
}

impl World {
    pub fn new(config: SchedulerConfig) -> Self {
        let rows = config.num_blocks as usize * config.block_size.get();
        Self {
            scheduler: Scheduler::new(config.clone()),
            config,
            plan: StepPlan::default(),
            slab: vec![(0, None); rows],
            jobs: BTreeMap::new(),
            decoding: Vec::new(),
            encoding: None,
            last_cohort: 0,
            next_id: 0,
            computed: 0,
        }
    }

    /// Adds a sequence; it is refused exactly when it exceeds the pool.
    pub fn add(&mut self, job: Job) {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let needed = job.blocks(self.config.prompts, self.config.block_size.get());
        let pool = self.config.num_blocks as usize;
        let added = self.scheduler.add(job.request(id));
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
        assert_eq!(plan.decode.is_empty(), self.jobs.is_empty(), "every step brings somebody on");
        let size = self.config.block_size.get();
        for copy in &plan.copies {
            let from = copy.from.index() * size;
            self.slab.copy_within(from..from + copy.rows, copy.to.index() * size);
        }
        if let Some(encode) = &plan.encode {
            self.encode(encode, preempted);
        } else if self.encoding.take().is_some() {
            assert!(self.scheduler.preemptions() > preempted, "a cohort is given up for memory only");
        }
        self.check_decoding(&plan);
        self.check_accounts();
        let tokens: Vec<Option<u32>> = plan.decode.iter().map(|decode| self.compute(decode)).collect();
        self.scheduler.advance(&plan);
        for (decode, token) in plan.decode.iter().zip(tokens) {
            if let Some(token) = token {
                self.commit(decode.sequence, token);
            }
        }
        self.decoding = plan.decode.iter().map(|decode| decode.sequence).collect();
        self.decoding.retain(|id| self.jobs.contains_key(id));
        self.plan = plan;
        self.check_accounts();
    }

    /// Steps until all sequences have ended; each step brings the oldest on by a row, so their number is bounded.
    pub fn finish(&mut self) {
        let rows: usize = self.jobs.values().map(|job| job.rows() + job.max_tokens).sum();
        for _ in 0..rows {
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

    pub fn hits(&self) -> u64 {
        self.scheduler.prefix_rows().1
    }

    fn remove(&mut self, id: SequenceId) {
        self.jobs.remove(&id);
        self.decoding.retain(|&decoding| decoding != id);
        let removed = self.scheduler.remove(id).unwrap();
        assert!(removed.prompt.blocks().is_empty() && removed.past.blocks().is_empty());
    }

    fn encode(&mut self, encode: &Encode, preempted: u64) {
        let PromptPath::Encoder { layers: all } = self.config.prompts else { panic!("there is an encoder") };
        let rows: usize = encode.sequences.iter().map(|id| self.jobs[id].rows()).sum();
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
        for id in &encode.sequences {
            let (job, table) = (&self.jobs[id], &self.scheduler.sequences.get(*id).unwrap().prompt);
            assert_eq!(table.len(), job.rows());
            for (slot, value) in table.slots(0..table.len()).zip(job.encoded()) {
                self.slab[slot] = (value, Some(job.tenant));
                self.computed += 1;
            }
        }
    }

    /// Who decoded goes on, in the order of admission; only the newest were sent back, and never the oldest.
    fn check_decoding(&mut self, plan: &StepPlan) {
        let now: Vec<SequenceId> = plan.decode.iter().map(|decode| decode.sequence).collect();
        let known = now.iter().filter(|id| self.decoding.contains(id)).count();
        if self.config.prompts == PromptPath::Decoder && self.config.max_batch_tokens < now.len() {
            // Prompts take turns in a budget that is too small for all: not everybody is in every plan.
        } else if let PromptPath::Encoder { .. } = self.config.prompts {
            assert!(self.decoding.starts_with(&now[..known]), "those who decoded, then the new ones");
            assert!(now[..known].first() == self.decoding.first(), "the oldest is never preempted");
        }
        let running = self.scheduler.running();
        assert!(running >= now.len() && running <= self.config.max_num_seqs);
    }

    fn commit(&mut self, id: SequenceId, token: u32) {
        let Some(found) = self.scheduler.commit(id, token) else { return };
        let (job, generated) = (&self.jobs[&id], &self.scheduler.sequences.get(id).unwrap().answer);
        assert_eq!((generated.len(), found), job.ends());
        assert_eq!(generated, &job.answer(self.config.prompts), "{id:?} answers as it would alone");
        self.remove(id);
    }

    /// Writes a decode's rows and chooses its token from all that it sees.
    fn compute(&mut self, planned: &Decode) -> Option<u32> {
        let (id, path) = (planned.sequence, self.config.prompts);
        let (sequence, job) = (self.scheduler.sequences.get(id).unwrap(), &self.jobs[&id]);
        assert!(sequence.encoded || sequence.causal);
        assert_eq!(planned.rows.start, sequence.computed);
        assert_eq!(sequence.past.len(), planned.rows.end);
        assert_eq!(planned.samples, planned.rows.end == sequence.decoder_rows());
        let read = |slab: &[(u64, Option<usize>)], slots: &mut dyn Iterator<Item = usize>| -> Vec<u64> {
            slots
                .map(|slot| {
                    let (value, tenant) = slab[slot];
                    assert!(tenant.is_none_or(|tenant| tenant == job.tenant), "{id:?} reads another's text");
                    value
                })
                .collect()
        };
        let mut seen = read(&self.slab, &mut sequence.prompt.slots(0..sequence.prompt.len()));
        seen.extend(read(&self.slab, &mut sequence.past.slots(0..planned.rows.start)));
        for (row, slot) in planned.rows.clone().zip(sequence.past.slots(planned.rows.clone())) {
            let value = computed(job.content(path, &sequence.answer, row), &seen);
            let text = path != PromptPath::Decoder || row >= job.virtual_tokens();
            self.slab[slot] = (value, text.then_some(job.tenant));
            self.computed += 1;
            seen.push(value);
        }
        let token = if sequence.generated() == job.ends_at { EOS } else { choose(&seen) };
        planned.samples.then_some(token)
    }

    /// A block is in several tables only where prefixes are shared, and every block is in a table or free; every live
    /// sequence is counted once.
    fn check_accounts(&mut self) {
        let mut held = HashSet::new();
        for &id in self.jobs.keys() {
            let sequence = self.scheduler.sequences.get(id).unwrap();
            let mut own = HashSet::new();
            for block in sequence.prompt.blocks().iter().chain(sequence.past.blocks()) {
                assert!(own.insert(*block), "{block:?} is in a sequence twice");
                assert!(held.insert(*block) || self.config.prefix_cache, "{block:?} is in two tables");
            }
        }
        assert_eq!(held.len(), self.scheduler.pool.used_blocks());
        assert_eq!(self.scheduler.sequences.len(), self.jobs.len());
        assert_eq!(self.scheduler.running() + self.scheduler.waiting(), self.jobs.len());
        if !self.config.prefix_cache {
            assert_eq!(self.scheduler.pool.names(), 0);
        }
    }
}
