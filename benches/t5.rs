//! The embedded model, step by step: prompts through the encoder, and decode steps through scheduler and runner; as its
//! file holds it, widened to f32, and against candle-transformers in f32, all in the same run.
//!
//! Both engines get the same token rows. Ours also applies a DePT adapter to the prompts, which candle's T5 can't.

mod support;

use std::{
    collections::HashMap,
    error::Error,
    num::{NonZeroU32, NonZeroUsize},
    path::Path,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::t5::{Config, T5ForConditionalGeneration};
use dept::{
    backbones::{
        t5::{Reach, T5, T5Config},
        weights::{Format, MatrixRows, RawEmbedding, RawLinear, Weights},
    },
    domain::{SamplingParams, Scoring, TenantId},
    kernels::{
        Place, RowIndices,
        dept_embed::{AdapterSlot, DeltaRow, LowRankSlot, Row, RowTable, UpdateSlot},
        linear::Isa,
        pool::ComputePool,
        ragged_attention::{Keys, Span, empty_slab},
    },
    layers::{Loader, PackedParts, Recipe},
    runner::{KvDtype, Runner, RunnerConfig, StepOutput, T5Runner},
    sampling::Sampler,
    scheduler::{NewSequence, PromptPath, Scheduler, SchedulerConfig, SequenceId, StepPlan},
};
use support::{Bench, noises};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/flan-t5-small-en");
/// Rows of a prompt: soft-prompt rows of an adapter, then tokens.
const VIRTUAL: usize = 20;
const TOKENS: usize = 65;
const ROWS: usize = VIRTUAL + TOKENS;
const RANK: usize = 53;
const PROMPTS: [usize; 2] = [1, 8];
const BATCHES: [usize; 3] = [1, 8, 32];
/// Tokens that a sequence generates before all start anew: a step's cost grows a little with them.
const NEW_TOKENS: usize = 64;
const NUM_BLOCKS: u32 = 1024;
const BLOCK_SIZE: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");
const KINDS: [(&str, Recipe); 2] = [("dept", Recipe::Stored), ("dept f32", Recipe::F32)];
const CANDLE: &str = "candle f32";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let weights = Weights::open(Path::new(MODEL))?;
    let mut bench = Bench::new();
    for (kind, recipe) in KINDS {
        let loader = Loader {
            weights: &weights,
            place: Place::Cpu,
            recipe,
            pool: ComputePool::new(threads)?,
            isa: Isa::fastest(),
            gradients: false,
            packed: PackedParts::Fresh,
        };
        let config = T5Config::read(&weights)?;
        let model = T5::load(&loader, config, Reach { prompt: 512, new_tokens: 2 * NEW_TOKENS })?;
        for prompts in PROMPTS {
            let encoding = Encoding::new(&model, prompts)?;
            let rows = (prompts * ROWS) as u64;
            bench.call(&encode(prompts), kind, rows, || encoding.run(&model).expect("rows that fit"));
        }
        let mut decoding = Decoding::new(model)?;
        for batch in BATCHES {
            let steps = |iterations| decoding.time(batch, iterations).expect("a batch that fits");
            bench.custom(&decode(batch), kind, batch as u64, steps);
        }
    }
    let mut theirs = Theirs::new(&weights)?;
    for prompts in PROMPTS {
        let ids = ids(prompts, ROWS)?;
        let rows = (prompts * ROWS) as u64;
        bench.call(&encode(prompts), CANDLE, rows, || theirs.model.encode(&ids).expect("shapes that fit"));
    }
    for batch in BATCHES {
        let steps = |iterations| theirs.time(batch, iterations).expect("shapes that fit");
        bench.custom(&decode(batch), CANDLE, batch as u64, steps);
    }
    print_table(&bench, threads);
    bench.finish();
    Ok(())
}

fn encode(prompts: usize) -> String {
    format!("encode {prompts} x {ROWS} rows")
}

fn decode(batch: usize) -> String {
    format!("decode step, batch {batch}")
}

/// A token that is in any vocabulary and is no special one.
fn token(index: usize) -> u32 {
    (10 + index * 7 % 1000) as u32
}

/// Prompts on their way through the encoder, up to the cross-attention K/V of every decoder block.
struct Encoding {
    prompt: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    rows: RowTable,
    spans: Vec<Span<'static>>,
    slabs: Vec<Tensor>,
    slots: RowIndices,
}

impl Encoding {
    fn new(model: &T5, prompts: usize) -> Outcome<Self> {
        let hidden = model.config().hidden;
        let mut rows = RowTable::default();
        for prompt in 0..prompts {
            (0..VIRTUAL as u32).for_each(|index| rows.push(Row::Prompt { slot: 0, index }));
            for index in 0..TOKENS {
                let delta = Some(DeltaRow { slot: 0, index: index as u32 });
                rows.push(Row::Token { token: token(prompt * TOKENS + index), delta });
            }
        }
        let span = |start: usize| Span {
            queries: start..start + ROWS,
            first_position: 0,
            context: ROWS,
            keys: Keys::Rows { start },
            causal: false,
        };
        let slab = |_| empty_slab((prompts * ROWS, model.slab_width()), DType::F16, &Device::Cpu);
        Ok(Self {
            prompt: noises(0, VIRTUAL * hidden),
            a: noises(1 << 20, TOKENS * RANK),
            b: noises(2 << 20, RANK * hidden),
            rows,
            spans: (0..prompts).map(|prompt| span(prompt * ROWS)).collect(),
            slabs: (0..model.config().decoder_layers).map(slab).collect::<candle_core::Result<_>>()?,
            slots: (0..(prompts * ROWS) as u32).collect(),
        })
    }

    fn run(&self, model: &T5) -> candle_core::Result<()> {
        let low_rank = LowRankSlot { a: &self.a, b: &self.b, rank: RANK, scale: 0.1 };
        let slots = vec![AdapterSlot { prompt: &self.prompt, update: UpdateSlot::LowRank(low_rank) }];
        let hidden = model.embed(&slots.into(), &self.rows)?; // (rows, hidden)
        let hidden = model.encode(hidden, &self.spans, 0..model.config().encoder_layers)?;
        model.write_prompt(&model.finish_encoder(&hidden)?, &self.slabs, &self.slots)
    }
}

/// A batch that decodes.
struct Decoding {
    scheduler: Scheduler,
    runner: T5Runner,
    vocab: usize,
    plan: StepPlan,
    output: StepOutput,
    running: Vec<SequenceId>,
    /// Steps since the batch started.
    steps: usize,
    next: u64,
}

impl Decoding {
    fn new(model: T5) -> Outcome<Self> {
        let config = model.config().clone();
        let scheduler = Scheduler::new(SchedulerConfig {
            num_blocks: NUM_BLOCKS,
            block_size: BLOCK_SIZE,
            max_num_seqs: 64,
            max_batch_tokens: 64 * ROWS,
            prompts: PromptPath::Encoder { layers: config.encoder_layers },
            eos: vec![config.eos],
            prefix_cache: false,
        });
        let runner = T5Runner::new(
            model,
            RunnerConfig {
                adapter_bytes: 0,
                kv_dtype: KvDtype::F16,
                num_blocks: NUM_BLOCKS,
                block_size: BLOCK_SIZE,
            },
        )?;
        Ok(Self {
            scheduler,
            runner,
            vocab: config.vocab,
            plan: StepPlan::default(),
            output: StepOutput::default(),
            running: Vec::new(),
            steps: 0,
            next: 0,
        })
    }

    /// The time of so many steps that decode `batch` sequences and do nothing else.
    fn time(&mut self, batch: usize, iterations: u64) -> Outcome<Duration> {
        self.start(batch)?;
        let mut took = Duration::ZERO;
        for _ in 0..iterations {
            if self.steps > NEW_TOKENS {
                self.start(batch)?;
            }
            let start = Instant::now();
            self.step()?;
            took += start.elapsed();
        }
        Ok(took)
    }

    /// Replaces what runs by `batch` new sequences, and takes them through the encoder.
    fn start(&mut self, batch: usize) -> Outcome<()> {
        for id in self.running.drain(..) {
            self.scheduler.remove(id);
        }
        for _ in 0..batch {
            let id = SequenceId(self.next);
            self.next += 1;
            self.scheduler.add(NewSequence {
                id,
                tenant: TenantId::default_tenant(),
                weight: NonZeroU32::MIN,
                adapter: None,
                prompt: (0..ROWS).map(|index| token(id.0 as usize * ROWS + index)).collect(),
                given: Vec::new(),
                scoring: Scoring::Off,
                sampler: Sampler::new(&SamplingParams::greedy(), 0, &[], self.vocab),
                guide: None,
                max_tokens: 2 * NEW_TOKENS,
                min_tokens: 2 * NEW_TOKENS,
                priority: 0,
            })?;
            self.running.push(id);
        }
        self.step()?;
        self.steps = 1;
        assert_eq!(self.output.tokens.len(), batch, "one step encodes all prompts");
        Ok(())
    }

    fn step(&mut self) -> Outcome<()> {
        self.scheduler.plan_step(&mut self.plan);
        self.output.clear();
        self.runner.step(&self.plan, self.scheduler.sequences(), &mut self.output)?;
        self.scheduler.advance(&self.plan);
        for (id, sampled) in &self.output.tokens {
            let token = sampled.as_ref().map_err(|&error| error)?.token;
            self.scheduler.commit(*id, token);
        }
        self.steps += 1;
        Ok(())
    }
}

/// candle-transformers' T5 with the same weights in f32.
struct Theirs {
    model: T5ForConditionalGeneration,
}

impl Theirs {
    fn new(weights: &Weights) -> Outcome<Self> {
        let config: Config = serde_json::from_value(weights.config().cloned().unwrap_or_default())?;
        let tensors = VarBuilder::from_tensors(widened(weights)?, DType::F32, &Device::Cpu);
        Ok(Self { model: T5ForConditionalGeneration::load(tensors, &config)? })
    }

    /// The time of so many decode steps of a padless batch, choosing greedily.
    fn time(&mut self, batch: usize, iterations: u64) -> Outcome<Duration> {
        let encoded = self.model.encode(&ids(batch, ROWS)?)?; // (batch, rows, hidden)
        let mut took = Duration::ZERO;
        let mut token = self.start(&encoded)?;
        for iteration in 0..iterations {
            if iteration % NEW_TOKENS as u64 == 0 {
                token = self.start(&encoded)?;
            }
            let start = Instant::now();
            token = self.step(&token, &encoded)?;
            took += start.elapsed();
        }
        Ok(took)
    }

    /// The first tokens. `(batch, 1)`
    fn start(&mut self, encoded: &Tensor) -> candle_core::Result<Tensor> {
        self.model.clear_kv_cache();
        self.step(&Tensor::zeros((encoded.dim(0)?, 1), DType::U32, &Device::Cpu)?, encoded)
    }

    fn step(&mut self, token: &Tensor, encoded: &Tensor) -> candle_core::Result<Tensor> {
        self.model.decode(token, encoded)?.argmax_keepdim(1)
    }
}

fn ids(prompts: usize, rows: usize) -> candle_core::Result<Tensor> {
    let ids: Vec<u32> = (0..prompts * rows).map(token).collect();
    Tensor::from_vec(ids, (prompts, rows), &Device::Cpu)
}

/// Every tensor in f32 by its name.
fn widened(weights: &Weights) -> Outcome<HashMap<String, Tensor>> {
    let widen = |values: &[i8], scales: &[f32], width: usize| -> Vec<f32> {
        let rows = values.chunks_exact(width).zip(scales);
        rows.flat_map(|(row, scale)| row.iter().map(move |&value| f32::from(value) * scale)).collect()
    };
    let mut tensors = HashMap::new();
    for info in weights.tensors() {
        let values = match (info.format, info.shape, info.name.strip_suffix(".weight")) {
            (Format::I8, &[n, d], Some("shared")) => {
                match weights.embedding(&MatrixRows::all("shared", (n, d)))? {
                    RawEmbedding::Floats(floats) => floats.widened(),
                    RawEmbedding::Blocks { values } => values,
                    RawEmbedding::I8 { values, scales } => widen(&values, &scales, d),
                }
            }
            (Format::I8, &[n, k], Some(module)) => match weights.linear(&MatrixRows::all(module, (n, k)))? {
                RawLinear::Floats(floats) => floats.widened(),
                RawLinear::Blocks { values } => values,
                RawLinear::I8 { values, scales, .. } => widen(&values, &scales, k),
            },
            _ => weights.tensor_f32(info.name, info.shape)?,
        };
        tensors.insert(info.name.to_owned(), Tensor::from_vec(values, info.shape, &Device::Cpu)?);
    }
    Ok(tensors)
}

fn print_table(bench: &Bench, threads: NonZeroUsize) {
    println!("\n{threads} threads; ms, rows or tokens a second, ratio to {CANDLE}");
    println!("{:<26}{:>28}{:>28}{:>28}", "", KINDS[0].0, KINDS[1].0, CANDLE);
    let encodes = PROMPTS.map(|prompts| (encode(prompts), prompts * ROWS));
    let decodes = BATCHES.map(|batch| (decode(batch), batch));
    for (case, elements) in encodes.into_iter().chain(decodes) {
        print!("{case:<26}");
        for kind in [KINDS[0].0, KINDS[1].0, CANDLE] {
            let Some(seconds) = bench.seconds(&case, kind) else {
                print!("{:>28}", "-");
                continue;
            };
            let (ms, rate) = (seconds * 1e3, elements as f64 / seconds);
            print!("{:>28}", format!("{ms:.2} {rate:.0}/s ({})", bench.ratio(&case, kind, CANDLE)));
        }
        println!();
    }
}
