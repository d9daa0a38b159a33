//! What several tests stand on: golden files and a model driven step by step, without a server.

pub mod causal;
pub mod process;

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    sync::Arc,
};

use dept::{
    adapter::{AdapterLease, folder},
    backbones::{
        decoder::Decoder,
        t5::{Reach, T5, T5Config},
        weights::Weights,
    },
    domain::{FinishReason, GivenToken, RawSampling, SamplingParams, Scoring, TenantId},
    grammar::{Compiled, Guide, Progress},
    kernels::{Place, dept_embed::ResidentUse, linear::Isa, pool::ComputePool},
    layers::{Loader, PackedParts, Recipe},
    runner::{CausalRunner, KvDtype, Runner, RunnerConfig, StepOutput, T5Runner},
    sampling::{Sampled, Sampler},
    scheduler::{NewSequence, PromptPath, Scheduler, SchedulerConfig, Sequence, SequenceId, StepPlan},
};

/// A file or folder of the repository.
pub fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The golden file `path`.
pub fn golden(path: &str) -> PathBuf {
    repo("tests/golden").join(path)
}

/// A T5 on `threads` threads.
pub fn load_t5(path: &Path, recipe: Recipe, threads: usize) -> T5 {
    load_t5_at(Place::Cpu, path, recipe, threads)
}

/// A T5 in a place of its own.
pub fn load_t5_at(place: Place, path: &Path, recipe: Recipe, threads: usize) -> T5 {
    let weights = Weights::open(path).unwrap();
    let config = T5Config::read(&weights).unwrap();
    T5::load(&loader(&weights, place, recipe, threads), config, Reach { prompt: 512, new_tokens: 128 })
        .unwrap()
}

/// What makes a model of a checkpoint, on `threads` threads.
fn loader(weights: &Weights, place: Place, recipe: Recipe, threads: usize) -> Loader<'_> {
    let pool = ComputePool::new(NonZeroUsize::new(threads).unwrap()).unwrap();
    let isa = Isa::fastest();
    Loader { weights, place, recipe, pool, isa, gradients: false, packed: PackedParts::Fresh }
}

/// A lease on an adapter folder; `task` chooses among the tasks of an MPT adapter.
pub fn lease(folder: &Path, task: Option<usize>) -> AdapterLease {
    let loaded = folder::load_task(folder, task).unwrap();
    AdapterLease::new(Arc::new(loaded.into_generation("golden".parse().unwrap())))
}

/// What to generate.
#[derive(Clone)]
pub struct Job {
    pub prompt: Vec<u32>,
    pub adapter: Option<AdapterLease>,
    pub max_tokens: usize,
    pub min_tokens: usize,
    /// What is scored beside that.
    pub given: Vec<u32>,
    pub scoring: Scoring,
    pub sampling: SamplingParams,
    /// What the text must be.
    pub grammar: Option<Arc<Compiled>>,
}

impl Job {
    /// Generates and scores nothing.
    pub fn new(prompt: Vec<u32>, adapter: Option<AdapterLease>, max_tokens: usize) -> Self {
        let sampling = SamplingParams::new(RawSampling { logprobs: 1, ..RawSampling::default() }).unwrap();
        let (given, scoring) = (Vec::new(), Scoring::Off);
        Self { prompt, adapter, max_tokens, min_tokens: 0, given, scoring, sampling, grammar: None }
    }

    /// Draws at temperature 1 with a seed of its own.
    pub fn drawn(self, seed: u64) -> Self {
        let raw = RawSampling { temperature: 1.0, seed: Some(seed), logprobs: 1, ..RawSampling::default() };
        Self { sampling: SamplingParams::new(raw).unwrap(), ..self }
    }

    fn seed(&self) -> u64 {
        self.sampling.seed.unwrap_or(0)
    }
}

/// How to drive a batch.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub num_blocks: u32,
    pub block_size: usize,
    pub max_batch_tokens: usize,
    pub max_num_seqs: usize,
    pub prefix_cache: bool,
    /// Of a device, for adapters.
    pub adapter_bytes: usize,
    pub kv_dtype: KvDtype,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            num_blocks: 256,
            block_size: 8,
            max_batch_tokens: 256,
            max_num_seqs: 16,
            prefix_cache: false,
            adapter_bytes: 1 << 16,
            kv_dtype: KvDtype::Computed,
        }
    }
}

impl Memory {
    fn runner(self) -> RunnerConfig {
        RunnerConfig {
            adapter_bytes: self.adapter_bytes,
            kv_dtype: self.kv_dtype,
            num_blocks: self.num_blocks,
            block_size: NonZeroUsize::new(self.block_size).unwrap(),
        }
    }

    fn scheduler(self, prompts: PromptPath, eos: Vec<u32>) -> Scheduler {
        Scheduler::new(SchedulerConfig {
            num_blocks: self.num_blocks,
            block_size: NonZeroUsize::new(self.block_size).unwrap(),
            max_num_seqs: self.max_num_seqs,
            max_batch_tokens: self.max_batch_tokens,
            prompts,
            eos,
            prefix_cache: self.prefix_cache,
        })
    }
}

/// Generates greedily for all jobs in one ragged batch, with log-probabilities; what is scored comes in front. Job `i` joins before step `3 i`.
pub fn generate(model: T5, jobs: &[Job], memory: Memory) -> (Vec<Vec<Sampled>>, Scheduler) {
    let config = model.config().clone();
    let scheduler = memory.scheduler(PromptPath::Encoder { layers: config.encoder_layers }, vec![config.eos]);
    drive(&mut T5Runner::new(model, memory.runner()).unwrap(), scheduler, config.vocab, jobs.to_vec())
}

/// The same on a decoder-only model.
pub fn generate_causal(model: Decoder, jobs: &[Job], memory: Memory) -> (Vec<Vec<Sampled>>, Scheduler) {
    let (results, scheduler, _) = generate_causal_once(model, jobs.to_vec(), memory);
    (results, scheduler)
}

/// The same for jobs whose adapters nobody else holds; and what a device had of them in the end.
pub fn generate_causal_once(
    model: Decoder,
    jobs: Vec<Job>,
    memory: Memory,
) -> (Vec<Vec<Sampled>>, Scheduler, ResidentUse) {
    let (vocab, eos) = (model.config().vocab, model.config().eos.clone());
    let mut runner = CausalRunner::new(model, memory.runner()).unwrap();
    let (results, scheduler) = drive(&mut runner, memory.scheduler(PromptPath::Decoder, eos), vocab, jobs);
    (results, scheduler, runner.resident_use())
}

fn drive(
    runner: &mut impl Runner,
    mut scheduler: Scheduler,
    vocab: usize,
    jobs: Vec<Job>,
) -> (Vec<Vec<Sampled>>, Scheduler) {
    let fetch = runner.fetch();
    let (count, mut jobs) = (jobs.len(), jobs.into_iter());
    let mut results = vec![Vec::new(); count];
    let mut done = 0;
    let mut plan = StepPlan::default();
    let mut output = StepOutput::default();
    for step in 0.. {
        if step % 3 == 0
            && let Some(job) = jobs.next()
        {
            job.adapter.iter().for_each(|lease| fetch.bring(lease));
            let seed = job.seed();
            let added = NewSequence {
                id: SequenceId(step as u64 / 3),
                tenant: TenantId::default_tenant(),
                weight: NonZeroU32::MIN,
                adapter: job.adapter,
                prompt: job.prompt,
                given: job.given,
                scoring: job.scoring,
                sampler: Sampler::new(&job.sampling, seed, &[], vocab),
                guide: job.grammar.clone().map(Guide::new),
                max_tokens: job.max_tokens,
                min_tokens: job.min_tokens,
                priority: 0,
            };
            scheduler.add(added).unwrap();
        }
        scheduler.plan_step(&mut plan);
        output.clear();
        runner.step(&plan, scheduler.sequences(), &mut output).unwrap();
        scheduler.advance(&plan);
        for (id, score) in output.scores.drain(..) {
            let GivenToken { id: token, logprob, top } = score.unwrap();
            results[id.0 as usize].push(Sampled { token, logprob: Some(logprob), top });
        }
        for id in plan.decode.iter().map(|decode| decode.sequence) {
            if scheduler.sequences().get(id).is_some_and(Sequence::is_scored) {
                scheduler.remove(id);
                done += 1;
            }
        }
        for (id, sampled) in output.tokens.drain(..) {
            let sampled = sampled.unwrap();
            let ended = scheduler.commit(id, sampled.token);
            let whole = ended != Some(FinishReason::Stop) && follow(&mut scheduler, id, sampled.token);
            results[id.0 as usize].push(sampled);
            if whole || ended.is_some() {
                scheduler.remove(id);
                done += 1;
            }
        }
        if done == count {
            break;
        }
        assert!(step < 100_000, "the batch makes no progress");
    }
    (results, scheduler)
}

/// Moves a sequence's grammar by its token, as the engine does. Returns whether the text is whole.
fn follow(scheduler: &mut Scheduler, id: SequenceId, token: u32) -> bool {
    let guide = scheduler.sequences().get_mut(id).and_then(|held| held.request.guide.as_mut());
    guide.is_some_and(|guide| guide.advance(token).unwrap() == Progress::Whole)
}
