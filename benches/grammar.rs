//! What it costs to hold texts to a grammar: steps without one, with masks computed while the model runs, and with masks computed
//! before it runs, in turns.
//!
//! The embedded model (12,288 tokens) is always there; SmolLM2 (49,152) where `DEPT_BENCH_SMOLLM2` names its file.

#[path = "support/rounds.rs"]
mod rounds;

use std::{
    error::Error,
    num::{NonZeroU32, NonZeroUsize},
    path::Path,
    sync::Arc,
    time::Instant,
};

use dept::{
    backbones::{
        decoder::{Decoder, DecoderConfig},
        t5::{Reach, T5, T5Config},
        weights::Weights,
    },
    domain::{Grammar, Pattern, RawSampling, SamplingParams, Schema, Scoring, TenantId},
    grammar::{Compiled, Grammars, Guide, Progress},
    kernels::{Place, linear::Isa, pool::ComputePool},
    layers::{Loader, PackedParts, Recipe},
    runner::{CausalRunner, KvDtype, Runner, RunnerConfig, StepOutput, T5Runner},
    sampling::Sampler,
    scheduler::{NewSequence, PromptPath, Scheduler, SchedulerConfig, SequenceId, StepPlan},
};
use rounds::median;

const ROUNDS: usize = 5;
/// Tokens of a sequence, and those at the beginning that are not counted: the prompt is computed there.
const TOKENS: usize = 40;
const WARM: usize = 4;
const BLOCKS: u32 = 1024;
const BLOCK_SIZE: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");

/// When masks are computed.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// There are none.
    Never,
    /// While the model runs.
    Meanwhile,
    /// Between two of its steps.
    Between,
}

/// A model whose steps are timed.
struct Subject {
    name: &'static str,
    runner: Box<dyn Runner>,
    prompts: PromptPath,
    eos: Vec<u32>,
    vocab: usize,
    prompt: Vec<u32>,
    grammars: Grammars,
}

impl Subject {
    fn embedded() -> Result<Self, Box<dyn Error>> {
        let weights = Weights::open(Path::new("models/flan-t5-small-en"))?;
        let config = T5Config::read(&weights)?;
        let loader = Loader {
            weights: &weights,
            place: Place::Cpu,
            recipe: Recipe::Stored,
            pool: ComputePool::new(threads())?,
            isa: Isa::fastest(),
            gradients: false,
            packed: PackedParts::Fresh,
        };
        let model = T5::load(&loader, config.clone(), Reach { prompt: 128, new_tokens: 128 })?;
        let prompts = PromptPath::Encoder { layers: config.encoder_layers };
        let runner = Box::new(T5Runner::new(model, memory())?);
        Self::new("flan-t5-small-en", &weights, (runner, prompts), (vec![config.eos], config.vocab))
    }

    fn smollm2(path: &Path) -> Result<Self, Box<dyn Error>> {
        let weights = Weights::open(path)?;
        let config = DecoderConfig::read(&weights)?;
        let (eos, vocab) = (config.eos.clone(), config.vocab);
        let loader = Loader {
            weights: &weights,
            place: Place::Cpu,
            recipe: Recipe::I8,
            pool: ComputePool::new(threads())?,
            isa: Isa::fastest(),
            gradients: false,
            packed: PackedParts::Fresh,
        };
        let runner = Box::new(CausalRunner::new(Decoder::load(&loader, config, 512)?, memory())?);
        Self::new("SmolLM2-135M", &weights, (runner, PromptPath::Decoder), (eos, vocab))
    }

    fn new(
        name: &'static str,
        weights: &Weights,
        (runner, prompts): (Box<dyn Runner>, PromptPath),
        (eos, vocab): (Vec<u32>, usize),
    ) -> Result<Self, Box<dyn Error>> {
        let tokenizer = weights.tokenizer()?;
        let vocab = vocab.min(tokenizer.id_bound());
        let prompt = tokenizer.encode("Write a long list of all things that you can see.")?;
        Ok(Self {
            name,
            runner,
            prompts,
            vocab,
            prompt,
            grammars: Grammars::new(tokenizer, vocab, eos.clone()),
            eos,
        })
    }

    /// The median step of `count` sequences that all work, in milliseconds.
    fn step_ms(&mut self, count: u64, grammar: &Arc<Compiled>, when: When) -> f64 {
        let mut scheduler = Scheduler::new(SchedulerConfig {
            num_blocks: BLOCKS,
            block_size: BLOCK_SIZE,
            max_num_seqs: 64,
            max_batch_tokens: 4096,
            prompts: self.prompts,
            eos: self.eos.clone(),
            prefix_cache: false,
        });
        for id in 0..count {
            let guide = (when != When::Never).then(|| Guide::new(Arc::clone(grammar)));
            scheduler.add(self.sequence(id, guide)).expect("the pool is large");
        }
        let (mut plan, mut output, mut steps) = (StepPlan::default(), StepOutput::default(), Vec::new());
        for _ in 0..TOKENS {
            let begun = Instant::now();
            scheduler.plan_step(&mut plan);
            output.clear();
            self.runner.step(&plan, scheduler.sequences(), &mut output).expect("the model runs");
            scheduler.advance(&plan);
            for (id, sampled) in output.tokens.drain(..) {
                let token = sampled.expect("a token is allowed").token;
                let ended = scheduler.commit(id, token).is_some();
                let guide = scheduler.sequences().get_mut(id).and_then(|held| held.request.guide.as_mut());
                let whole = !ended && guide.is_some_and(|guide| follow(guide, token, when));
                if ended || whole {
                    scheduler.remove(id);
                }
            }
            if plan.decode.len() == count as usize {
                steps.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
        for id in 0..count {
            scheduler.remove(SequenceId(id));
        }
        median(steps.split_off(WARM.min(steps.len().saturating_sub(1))))
    }

    fn sequence(&self, id: u64, guide: Option<Guide>) -> NewSequence {
        let raw = RawSampling { temperature: 1.0, ..RawSampling::default() };
        let sampling = SamplingParams::new(raw).expect("1 is a temperature");
        NewSequence {
            id: SequenceId(id),
            tenant: TenantId::default_tenant(),
            weight: NonZeroU32::MIN,
            adapter: None,
            prompt: self.prompt.clone(),
            given: Vec::new(),
            scoring: Scoring::Off,
            sampler: Sampler::new(&sampling, id, &[], self.vocab),
            guide,
            max_tokens: TOKENS + 1,
            min_tokens: TOKENS + 1,
            priority: 0,
        }
    }
}

/// Moves a grammar by a token; returns whether the text is whole.
fn follow(guide: &mut Guide, token: u32, when: When) -> bool {
    let progress = guide.advance(token).expect("the token was allowed");
    if when == When::Between {
        guide.mask().expect("a token is allowed");
    }
    progress == Progress::Whole
}

fn memory() -> RunnerConfig {
    RunnerConfig { adapter_bytes: 0, kv_dtype: KvDtype::F16, num_blocks: BLOCKS, block_size: BLOCK_SIZE }
}

fn threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Languages that do not end within the tokens of a run.
fn languages() -> [(&'static str, Grammar); 3] {
    let regex = |pattern| Grammar::Regex(Pattern::new(pattern).expect("it is not empty"));
    let strings =
        r#"{"type": "array", "minItems": 100, "items": {"type": "string", "minLength": 8, "maxLength": 60}}"#;
    [
        ("words", regex(r"[a-z]{1,12}( [a-z]{1,12}){100,200}")),
        ("any text", regex(r"(?s).{400,900}")),
        ("JSON strings", Grammar::JsonSchema(Schema::new(strings).expect("it is a schema"))),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut subjects = vec![Subject::embedded()?];
    #[expect(clippy::disallowed_methods, reason = "a bench is told where the file is")]
    let smollm2 = std::env::var_os("DEPT_BENCH_SMOLLM2");
    if let Some(path) = smollm2 {
        subjects.push(Subject::smollm2(Path::new(&path))?);
    }
    println!("| model | grammar | sequences | step, ms | masks meanwhile | masks between |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for subject in &mut subjects {
        for (language, grammar) in languages() {
            let compiled = subject.grammars.get(&TenantId::default_tenant(), &grammar)?;
            for count in [1, 16] {
                let mut all = [When::Never, When::Meanwhile, When::Between].map(|when| (when, Vec::new()));
                for round in 0..=ROUNDS {
                    all.rotate_left(1);
                    for (when, found) in &mut all {
                        let step = subject.step_ms(count, &compiled, *when);
                        // The first round warms the caches.
                        if round > 0 {
                            found.push(step);
                        }
                    }
                }
                let of = |wanted| {
                    all.iter().find(|(when, _)| *when == wanted).map(|(_, found)| median(found.clone()))
                };
                let [free, meanwhile, between] =
                    [When::Never, When::Meanwhile, When::Between].map(|when| of(when).unwrap_or(f64::NAN));
                let more = |step: f64| format!("+{:.1} %", 1e2 * (step / free - 1.0));
                let name = subject.name;
                println!(
                    "| {name} | {language} | {count} | {free:.2} | {} | {} |",
                    more(meanwhile),
                    more(between)
                );
            }
        }
    }
    Ok(())
}
