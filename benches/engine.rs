//! What scheduler and engine cost beside the model: the embedded model serves 64 sequences, and a clock around the runner
//! tells its time from everything that happens between two of its steps (commands, planning, detokenizing, events, metrics).
//!
//! The answers are read by a thread of their own, as a server does. `--small` runs less.

#[path = "support/rounds.rs"]
mod rounds;

use std::{
    error::Error,
    num::{NonZeroU32, NonZeroUsize},
    path::Path,
    sync::{Arc, Mutex},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use dept::{
    adapter::{AdapterLease, folder},
    backbones::{
        t5::{Reach, T5, T5Config},
        weights::Weights,
    },
    domain::{ContextWindow, ModelKind, ModelProfile, SamplingParams, Scoring, TenantId, TokenEvent},
    engine::{Engine, EngineHandle, EngineParts, QueueLimits, Submission},
    kernels::{Place, linear::Isa, pool::ComputePool},
    layers::{Loader, PackedParts, Recipe},
    runner::{KvDtype, Runner, RunnerConfig, StepError, StepOutput, T5Runner},
    scheduler::{PromptPath, Scheduler, SchedulerConfig, Sequences, StepPlan},
    telemetry::Metrics,
};
use futures::{StreamExt, stream};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const AT_ONCE: usize = 64;
const PROMPT_TOKENS: usize = 32;
const REACH: Reach = Reach { prompt: 512, new_tokens: 128 };
const BLOCK_SIZE: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");
const NUM_BLOCKS: u32 = 2048;

/// When the runner's steps began and ended, and how many sequences they worked on.
type Log = Arc<Mutex<Vec<(Instant, Instant, usize)>>>;

/// A runner that writes down its times.
struct Timed {
    runner: T5Runner,
    log: Log,
}

impl Runner for Timed {
    fn step(
        &mut self,
        plan: &StepPlan,
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        let began = Instant::now();
        let outcome = self.runner.step(plan, sequences, output);
        self.log.lock().expect("the log's holders do not panic").push((
            began,
            Instant::now(),
            plan.sequences().count(),
        ));
        outcome
    }
}

/// Answers of from `shortest` to `longest` tokens, `requests` of them, 64 at once.
struct Load {
    name: &'static str,
    shortest: usize,
    longest: usize,
    requests: usize,
    /// Steps with fewer sequences are not counted.
    least: usize,
}

const LOADS: [Load; 2] = [
    Load { name: "64 new tokens each", shortest: 64, longest: 64, requests: 128, least: AT_ONCE },
    Load { name: "2 to 8 new tokens each", shortest: 2, longest: 8, requests: 512, least: AT_ONCE / 2 },
];

fn main() -> Outcome<()> {
    let rounds = if std::env::args().any(|argument| argument == "--small") { 1 } else { 7 };
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let log = Log::default();
    let handle = start(threads, Arc::clone(&log))?;
    let path = Path::new(ROOT).join("adapters/sst2");
    let generation = folder::load(&path)?.into_generation("sst2".parse()?);
    let adapter = AdapterLease::new(Arc::new(generation));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    println!(
        "flan-t5-small-en, {AT_ONCE} sequences at once, {threads} threads; median of {rounds} rounds.\n"
    );
    println!("| load | steps | runner, ms a step | beside it, us a step | share beside it |");
    println!("| --- | --- | --- | --- | --- |");
    for load in LOADS {
        let mut shares = Vec::new();
        for round in 0..=rounds {
            log.lock().expect("the log's holders do not panic").clear();
            runtime.block_on(serve(&handle, &adapter, &load, round));
            shares.extend((round > 0).then(|| Share::of(&log, load.least)));
        }
        let median = |field: fn(&Share) -> f64| rounds::median(shares.iter().map(field).collect());
        println!(
            "| {} | {:.0} | {:.2} | {:.0} | {:.2} % |",
            load.name,
            median(|share| share.steps as f64),
            median(|share| share.inside * 1e3),
            median(|share| share.beside * 1e6),
            median(|share| 1e2 * share.beside / (share.inside + share.beside)),
        );
    }
    Ok(())
}

/// Seconds a step, inside the runner and before it.
struct Share {
    steps: usize,
    inside: f64,
    beside: f64,
}

impl Share {
    /// Of the steps with so many sequences at least, all of whose predecessors had as many too.
    fn of(log: &Log, least: usize) -> Self {
        let log = log.lock().expect("the log's holders do not panic");
        let full = log.windows(2).filter(|pair| pair.iter().all(|&(.., sequences)| sequences >= least));
        let (mut steps, mut inside, mut beside) = (0, Duration::ZERO, Duration::ZERO);
        for pair in full {
            let ((_, last, _), (began, ended, _)) = (pair[0], pair[1]);
            steps += 1;
            inside += ended - began;
            beside += began - last;
        }
        let a_step = |time: Duration| time.as_secs_f64() / f64::max(steps as f64, 1.0);
        Self { steps, inside: a_step(inside), beside: a_step(beside) }
    }
}

/// An engine as the server builds it.
fn start(threads: NonZeroUsize, log: Log) -> Outcome<EngineHandle> {
    let weights = Weights::open(&Path::new(ROOT).join("models/flan-t5-small-en"))?;
    let config = T5Config::read(&weights)?;
    let loader = Loader {
        weights: &weights,
        place: Place::Cpu,
        recipe: Recipe::Stored,
        pool: ComputePool::new(threads)?,
        isa: Isa::fastest(),
        gradients: false,
        packed: PackedParts::Fresh,
    };
    let model = T5::load(&loader, config.clone(), REACH)?;
    let profile = ModelProfile {
        name: "flan-t5-small-en".to_owned(),
        fingerprint: weights.fingerprint().to_owned(),
        kind: ModelKind::Seq2Seq,
        hidden: config.hidden,
        vocab_size: config.vocab,
        eos: None,
        context: ContextWindow::Apart { prompt_rows: REACH.prompt, new_tokens: REACH.new_tokens },
    };
    let queue = QueueLimits { sequences: 4 * AT_ONCE, tokens: usize::MAX };
    let (handle, inbox) = EngineHandle::channel(Arc::new(profile), queue);
    let tokenizer = weights.tokenizer()?;
    let parts = EngineParts {
        inbox,
        load: Arc::clone(handle.load()),
        scheduler: Scheduler::new(SchedulerConfig {
            num_blocks: NUM_BLOCKS,
            block_size: BLOCK_SIZE,
            max_num_seqs: AT_ONCE,
            max_batch_tokens: 2048,
            prompts: PromptPath::Encoder { layers: config.encoder_layers },
            eos: vec![config.eos],
            // As the server has it; no prompt comes again here.
            prefix_cache: true,
        }),
        vocab: config.vocab.min(tokenizer.id_bound()),
        tokenizer,
        decoder_start: Some(config.decoder_start),
        observer: Box::new(Arc::new(Metrics::default())),
    };
    let runner = T5Runner::new(
        model,
        RunnerConfig {
            adapter_bytes: 0,
            kv_dtype: KvDtype::F16,
            num_blocks: NUM_BLOCKS,
            block_size: BLOCK_SIZE,
        },
    )?;
    Engine::spawn(parts, Timed { runner, log })?;
    Ok(handle)
}

/// Sends the load's requests, 64 at once, and reads their answers.
async fn serve(handle: &EngineHandle, adapter: &AdapterLease, load: &Load, round: usize) {
    let ask = |number: usize| async move {
        let seed = round * load.requests + number;
        let length = load.shortest + seed * 5 % (load.longest - load.shortest + 1);
        let submission = Submission {
            tenant: TenantId::default_tenant(),
            weight: NonZeroU32::MIN,
            adapter: Some(adapter.clone()),
            tokens: (0..PROMPT_TOKENS).map(|index| token(seed, index)).collect(),
            given: Vec::new(),
            scoring: Scoring::Off,
            sampling: SamplingParams::greedy(),
            max_tokens: length as u32,
            min_tokens: length as u32,
            stop: Vec::new(),
            grammar: None,
            priority: 0,
            deadline: None,
        };
        let mut events = handle.submit(submission).expect("the queue has room for 64");
        while let Some(event) = events.next().await {
            assert!(!matches!(event, TokenEvent::Failed(..)), "{event:?}");
        }
    };
    stream::iter(0..load.requests).map(ask).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
}

/// A prompt's token, past the special ones; no two seeds of a run share a prompt.
fn token(seed: usize, index: usize) -> u32 {
    (10 + (seed * 7919 + index * 31) % 12_000) as u32
}
