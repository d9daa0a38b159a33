//! Requests a second with DePT against prompt tuning (PT) of 100 rows, at equal numbers of parameters, through scheduler
//! and runner: T5 in three sizes, and a decoder-only model with and without the prefix cache.
//!
//! The models have real shapes and random weights, in int8. All variants of a model take turns round by round, so the
//! ratios come from one run; each request has a prompt of its own. `--small` runs one short round, `--model NAME` one model.

#[path = "support/random_model.rs"]
mod random_model;
#[path = "support/rounds.rs"]
mod rounds;

use std::{
    error::Error,
    num::{NonZeroU32, NonZeroUsize},
    thread::available_parallelism,
    time::Instant,
};

use dept::{
    adapter::AdapterLease,
    backbones::{
        decoder::{Decoder, DecoderConfig},
        t5::{Reach, T5, T5Config},
        weights::Weights,
    },
    domain::{SamplingParams, Scoring, TenantId},
    kernels::{Place, linear::Isa, pool::ComputePool},
    layers::{Loader, PackedParts, Recipe},
    runner::{CausalRunner, KvDtype, Runner, RunnerConfig, StepOutput, T5Runner},
    sampling::Sampler,
    scheduler::{NewSequence, PromptPath, Scheduler, SchedulerConfig, SequenceId, StepPlan},
};
use random_model::{LlamaShape, T5Shape, adapter, write_llama, write_t5};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Rows of the PT that DePT has as many parameters as.
const PT_ROWS: usize = 100;
const DEPT_ROWS: [usize; 3] = [60, 40, 20];
/// Longest input that an adapter has low-rank rows for.
const MAX_LENGTH: usize = 256;
/// Tokens of a prompt: a sentence, a short passage.
const PROMPTS: [usize; 2] = [32, 128];
const NEW_TOKENS: usize = 4;
const AT_ONCE: usize = 16;
const BLOCK_SIZE: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");
/// For 16 sequences of 256 rows, and room for what a prefix cache keeps.
const NUM_BLOCKS: u32 = 512;

/// A model and how long to look at it.
struct Case {
    name: &'static str,
    shape: Shape,
    /// Requests a variant, a round: about as long for each model.
    requests: usize,
}

#[derive(Clone, Copy)]
enum Shape {
    T5(T5Shape),
    Llama(LlamaShape),
}

const CASES: [Case; 4] = [
    Case {
        name: "T5-small",
        shape: Shape::T5(T5Shape { hidden: 512, inner: 2048, heads: 8, layers: 6 }),
        requests: 64,
    },
    Case {
        name: "T5-base",
        shape: Shape::T5(T5Shape { hidden: 768, inner: 3072, heads: 12, layers: 12 }),
        requests: 32,
    },
    Case {
        name: "T5-large",
        shape: Shape::T5(T5Shape { hidden: 1024, inner: 4096, heads: 16, layers: 24 }),
        requests: 16,
    },
    Case {
        name: "SmolLM2-135M",
        shape: Shape::Llama(LlamaShape {
            hidden: 576,
            inner: 1536,
            heads: 9,
            kv_heads: 3,
            layers: 30,
            vocab: 49_152,
        }),
        requests: 16,
    },
];

impl Shape {
    fn hidden(self) -> usize {
        match self {
            Self::T5(shape) => shape.hidden,
            Self::Llama(shape) => shape.hidden,
        }
    }

    fn task(self) -> &'static str {
        match self {
            Self::T5(_) => "SEQ_2_SEQ_LM",
            Self::Llama(_) => "CAUSAL_LM",
        }
    }

    /// Whether soft prompts may be used again: an encoder's depend on the text behind them.
    fn caches(self) -> &'static [bool] {
        match self {
            Self::T5(_) => &[false],
            Self::Llama(_) => &[false, true],
        }
    }
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let small = arguments.iter().any(|argument| argument == "--small");
    let chosen = arguments.iter().position(|argument| argument == "--model").map(|at| arguments.get(at + 1));
    let rounds = if small { 1 } else { 3 };
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    println!(
        "Requests/s, {AT_ONCE} at once, {NEW_TOKENS} new tokens each, int8, random weights, {threads} threads; median of \
         {rounds} rounds.\n"
    );
    println!(
        "| model | prompt tokens | prefix cache | PT 100 | DePT 60 | DePT 40 | DePT 20 | 60 / PT | 40 / PT | 20 / PT |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for case in CASES {
        if chosen.is_some_and(|name| name.is_none_or(|name| name != case.name)) {
            continue;
        }
        let mut machine = Machine::new(case.shape, threads)?;
        let variants = variants(case.shape)?;
        let requests = if small { AT_ONCE } else { case.requests };
        for tokens in PROMPTS {
            for &prefix_cache in case.shape.caches() {
                let rates = machine.rates(&variants, Load { tokens, requests, prefix_cache, rounds })?;
                print_row(case.name, tokens, case.shape.caches().len() > 1, prefix_cache, &rates);
            }
        }
    }
    Ok(())
}

/// PT, then DePT from long to short.
fn variants(shape: Shape) -> Outcome<Vec<AdapterLease>> {
    let d = shape.hidden();
    let rank = |m: usize| (PT_ROWS - m) * d / (MAX_LENGTH + d);
    let pt = adapter(shape.task(), PT_ROWS, 0, MAX_LENGTH, d)?;
    let dept = DEPT_ROWS.map(|m| adapter(shape.task(), m, rank(m), MAX_LENGTH, d));
    std::iter::once(Ok(pt)).chain(dept).collect()
}

fn print_row(model: &str, tokens: usize, has_cache: bool, cached: bool, rates: &[f64]) {
    let cache = if !has_cache {
        "-"
    } else if cached {
        "on"
    } else {
        "off"
    };
    print!("| {model} | {tokens} | {cache} |");
    rates.iter().for_each(|rate| print!(" {rate:.1} |"));
    rates[1..].iter().for_each(|rate| print!(" {:.2}x |", rate / rates[0]));
    println!();
}

#[derive(Clone, Copy)]
struct Load {
    tokens: usize,
    requests: usize,
    prefix_cache: bool,
    rounds: usize,
}

/// A resident model.
struct Machine {
    runner: Box<dyn Runner>,
    prompts: PromptPath,
    vocab: usize,
    next: u64,
}

impl Machine {
    fn new(shape: Shape, threads: NonZeroUsize) -> Outcome<Self> {
        let home = tempfile::tempdir()?;
        match shape {
            Shape::T5(shape) => write_t5(home.path(), shape)?,
            Shape::Llama(shape) => write_llama(home.path(), shape)?,
        }
        let weights = Weights::open(home.path())?;
        let loader = Loader {
            weights: &weights,
            place: Place::Cpu,
            recipe: Recipe::Stored,
            pool: ComputePool::new(threads)?,
            isa: Isa::fastest(),
            gradients: false,
            packed: PackedParts::Fresh,
        };
        let memory = RunnerConfig {
            adapter_bytes: 0,
            kv_dtype: KvDtype::F16,
            num_blocks: NUM_BLOCKS,
            block_size: BLOCK_SIZE,
        };
        let (runner, prompts, vocab): (Box<dyn Runner>, _, _) = match shape {
            Shape::T5(shape) => {
                let config = T5Config::read(&weights)?;
                let vocab = config.vocab;
                let model = T5::load(&loader, config, Reach { prompt: 512, new_tokens: 64 })?;
                (Box::new(T5Runner::new(model, memory)?), PromptPath::Encoder { layers: shape.layers }, vocab)
            }
            Shape::Llama(shape) => {
                let model = Decoder::load(&loader, DecoderConfig::read(&weights)?, 512)?;
                (Box::new(CausalRunner::new(model, memory)?), PromptPath::Decoder, shape.vocab)
            }
        };
        Ok(Self { runner, prompts, vocab, next: 0 })
    }

    /// Requests a second of each variant: the median of the rounds, after one that is not counted.
    fn rates(&mut self, variants: &[AdapterLease], load: Load) -> Outcome<Vec<f64>> {
        let mut rates = vec![Vec::new(); variants.len()];
        for round in 0..=load.rounds {
            for at in 0..variants.len() {
                let variant = (at + round) % variants.len();
                let rate = self.rate(&variants[variant], load)?;
                if round > 0 {
                    rates[variant].push(rate);
                }
            }
        }
        Ok(rates.into_iter().map(rounds::median).collect())
    }

    /// Requests a second, as many as may at once, each with a prompt of its own.
    fn rate(&mut self, adapter: &AdapterLease, load: Load) -> Outcome<f64> {
        let mut scheduler = self.scheduler(load.prefix_cache);
        if load.prefix_cache {
            // What a server has long since done: the soft prompt is there.
            self.serve(&mut scheduler, adapter, Load { requests: 1, ..load })?;
        }
        let start = Instant::now();
        self.serve(&mut scheduler, adapter, load)?;
        Ok(load.requests as f64 / start.elapsed().as_secs_f64())
    }

    fn scheduler(&self, prefix_cache: bool) -> Scheduler {
        Scheduler::new(SchedulerConfig {
            num_blocks: NUM_BLOCKS,
            block_size: BLOCK_SIZE,
            max_num_seqs: AT_ONCE,
            max_batch_tokens: 2048,
            prompts: self.prompts,
            eos: Vec::new(),
            prefix_cache,
        })
    }

    fn serve(&mut self, scheduler: &mut Scheduler, adapter: &AdapterLease, load: Load) -> Outcome<()> {
        for _ in 0..load.requests {
            self.next += 1;
            scheduler.add(self.request(self.next, adapter, load.tokens))?;
        }
        let (mut plan, mut output) = (StepPlan::default(), StepOutput::default());
        let mut left = load.requests;
        while left > 0 {
            scheduler.plan_step(&mut plan);
            output.tokens.clear();
            self.runner.step(&plan, scheduler.sequences(), &mut output)?;
            scheduler.advance(&plan);
            for (id, sampled) in &output.tokens {
                let token = sampled.as_ref().map_err(|&error| error)?.token;
                if scheduler.commit(*id, token).is_some() {
                    scheduler.remove(*id);
                    left -= 1;
                }
            }
        }
        Ok(())
    }

    fn request(&self, number: u64, adapter: &AdapterLease, tokens: usize) -> NewSequence {
        // Numbers that no other request has, past the special tokens.
        let token = |index: usize| 10 + (number as usize * 7919 + index * 31) % (self.vocab - 10);
        NewSequence {
            id: SequenceId(number),
            tenant: TenantId::default_tenant(),
            weight: NonZeroU32::MIN,
            adapter: Some(adapter.clone()),
            prompt: (0..tokens).map(|index| token(index) as u32).collect(),
            given: Vec::new(),
            scoring: Scoring::Off,
            sampler: Sampler::new(&SamplingParams::greedy(), 0, &[], self.vocab),
            guide: None,
            max_tokens: NEW_TOKENS,
            min_tokens: NEW_TOKENS,
            priority: 0,
        }
    }
}
