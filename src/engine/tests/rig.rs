//! An engine over a runner that a test holds at its steps: nothing here sleeps.

use std::{
    collections::BTreeSet,
    num::{NonZeroU32, NonZeroUsize},
    panic::resume_unwind,
    path::Path,
    sync::{Arc, atomic::AtomicUsize, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use futures::StreamExt;

use crate::{
    domain::{
        Completion, ContextWindow, ModelKind, ModelProfile, SamplingParams, Scoring, SequenceError, TenantId,
        TokenEvent,
    },
    engine::{
        Engine, EngineHandle, EngineParts, Load, Observer, QueueLimits, StepReport, Submission, TokenStream,
        Unobserved,
    },
    runner::{Runner, StepError, StepOutput, fake::FakeRunner},
    scheduler::{PromptPath, Scheduler, SchedulerConfig, Sequences, StepPlan},
    tokenizer::Tokenizer,
};

/// Long enough for a loaded machine; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A prompt that begins with it makes the runner panic.
pub const PANIC: u32 = 80;

/// How large the engine is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub num_blocks: u32,
    pub block_size: usize,
    pub max_num_seqs: usize,
    pub queue_limit: usize,
    pub prefix_cache: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self { num_blocks: 4096, block_size: 1024, max_num_seqs: 8, queue_limit: 1000, prefix_cache: false }
    }
}

/// A fake runner that reports the sequences of every step when it begins, and waits to be let on.
pub struct Gated {
    inner: FakeRunner,
    begun: mpsc::Sender<BTreeSet<u64>>,
    permits: mpsc::Receiver<()>,
}

impl Runner for Gated {
    fn step(
        &mut self,
        plan: &StepPlan,
        sequences: &mut Sequences,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        // Neither fails while the gate is held; an open gate is a dropped one.
        let _ = self.begun.send(plan.sequences().map(|id| id.0).collect());
        let _ = self.permits.recv();
        let begins = |id| sequences.get(id).is_some_and(|held| held.request.prompt[0] == PANIC);
        let panics = plan.sequences().any(begins);
        self.inner.step(plan, sequences, output)?;
        if panics {
            // Past the hook, which would write to the test's output.
            resume_unwind(Box::new("as the test wants"));
        }
        Ok(())
    }
}

/// Holds the runner. Dropping it lets every step pass.
pub struct Gate {
    begun: mpsc::Receiver<BTreeSet<u64>>,
    permits: mpsc::Sender<()>,
}

impl Gate {
    /// Waits until a step begins; returns its sequences, in order of their arrival from 0.
    pub fn begun(&self) -> Vec<u64> {
        self.begun.recv_timeout(PATIENCE).unwrap().into_iter().collect()
    }

    /// Whether a step has begun that was not asked after yet.
    pub fn try_begun(&self) -> bool {
        self.begun.try_recv().is_ok()
    }

    /// Lets the step that has begun pass.
    pub fn pass(&self) {
        self.permits.send(()).unwrap();
    }
}

/// Tells a test what an engine tells its metrics.
#[derive(Debug)]
pub struct Watch {
    steps: mpsc::Sender<StepReport>,
    finished: mpsc::Sender<Completion>,
}

impl Observer for Watch {
    fn step(&self, step: &StepReport) {
        let _ = self.steps.send(*step);
    }

    fn load(&self, _: usize, _: usize, _: f64) {}

    fn token(&self, _: bool, _: Duration) {}

    fn finished(&self, completion: &Completion) {
        let _ = self.finished.send(completion.clone());
    }
}

/// A running engine.
pub struct Rig {
    pub handle: EngineHandle,
    pub thread: JoinHandle<()>,
    pub runner_steps: Arc<AtomicUsize>,
    pub steps: mpsc::Receiver<StepReport>,
    pub finished: mpsc::Receiver<Completion>,
}

impl Rig {
    /// An engine whose steps pass freely.
    pub fn start(size: Size) -> Self {
        Self::start_gated(size).0
    }

    /// An engine whose every step waits for the gate.
    pub fn start_gated(size: Size) -> (Self, Gate) {
        let (handle, mut parts) = parts(size);
        let (runner, gate, runner_steps) = gated();
        let (step, steps) = mpsc::channel();
        let (end, finished) = mpsc::channel();
        parts.observer = Box::new(Watch { steps: step, finished: end });
        let thread = Engine::spawn(parts, runner).unwrap();
        (Self { handle, thread, runner_steps, steps, finished }, gate)
    }

    pub fn submit(&self, submission: Submission) -> TokenStream {
        self.handle.submit(submission).unwrap()
    }

    /// Waits for the end of the thread; nothing is left in its account then.
    pub fn join(self) {
        let load = Arc::clone(self.handle.load());
        drop(self.handle);
        // The engine drops its observer last.
        while self.steps.recv_timeout(PATIENCE).map_err(|e| assert_eq!(e.to_string(), DROPPED)).is_ok() {}
        self.thread.join().unwrap();
        assert_eq!(counts(&load), (0, 0));
    }
}

const DROPPED: &str = "channel is empty and sending half is closed";

/// Sequences that wait and that run.
pub fn counts(load: &Load) -> (usize, usize) {
    (load.waiting(), load.running())
}

pub fn gated() -> (Gated, Gate, Arc<AtomicUsize>) {
    let inner = FakeRunner::default();
    let steps = Arc::clone(&inner.steps);
    let (begin, begun) = mpsc::channel();
    let (permit, permits) = mpsc::channel();
    (Gated { inner, begun: begin, permits }, Gate { begun, permits: permit }, steps)
}

/// What an engine is made of, not yet started.
pub fn parts(size: Size) -> (EngineHandle, EngineParts) {
    let tokenizer = tokenizer();
    let model = ModelProfile {
        name: "fake".to_owned(),
        fingerprint: String::new(),
        kind: ModelKind::Seq2Seq,
        hidden: 8,
        vocab_size: tokenizer.vocab_size(),
        eos: Some(FakeRunner::EOS),
        context: ContextWindow::Apart { prompt_rows: 512, new_tokens: 1 << 20 },
    };
    let (handle, inbox) = EngineHandle::channel(
        Arc::new(model),
        QueueLimits { sequences: size.queue_limit, tokens: usize::MAX },
    );
    let scheduler = Scheduler::new(SchedulerConfig {
        num_blocks: size.num_blocks,
        block_size: NonZeroUsize::new(size.block_size).unwrap(),
        max_num_seqs: size.max_num_seqs,
        max_batch_tokens: 64,
        prompts: PromptPath::Encoder { layers: 4 },
        eos: vec![FakeRunner::EOS],
        prefix_cache: size.prefix_cache,
    });
    let parts = EngineParts {
        inbox,
        load: Arc::clone(handle.load()),
        scheduler,
        vocab: tokenizer.vocab_size(),
        tokenizer,
        decoder_start: Some(0),
        observer: Box::new(Unobserved),
    };
    (handle, parts)
}

pub fn tokenizer() -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/t5-v1_1/tokenizer.json");
    Tokenizer::from_file(&path).unwrap()
}

/// A request that is answered with its own tokens.
pub fn echo(tokens: &[u32]) -> Submission {
    Submission {
        tenant: TenantId::default_tenant(),
        weight: NonZeroU32::MIN,
        adapter: None,
        tokens: tokens.to_vec(),
        given: Vec::new(),
        scoring: Scoring::Off,
        sampling: SamplingParams::greedy(),
        max_tokens: 100,
        min_tokens: 0,
        stop: Vec::new(),
        grammar: None,
        priority: 0,
        deadline: None,
    }
}

/// A request that is answered with its own text.
pub fn echo_text(text: &str) -> Submission {
    echo(&tokenizer().encode(text).unwrap())
}

/// A request that goes on for `max_tokens`.
pub fn endless(max_tokens: u32) -> Submission {
    Submission { max_tokens, ..echo(&[FakeRunner::ENDLESS]) }
}

/// More tokens than a test waits for.
pub const FOREVER: u32 = 1 << 20;

/// The next event.
pub fn next(stream: &mut TokenStream) -> Option<TokenEvent> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, stream.next()).await.unwrap() })
}

/// All that came of a sequence.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The tokens that were scored, with their log-probabilities.
    pub given: Vec<(u32, f32)>,
    pub tokens: Vec<u32>,
    /// The tokens' texts.
    pub pieces: Vec<String>,
    pub end: Result<Completion, SequenceError>,
}

impl Answer {
    pub fn completion(&self) -> &Completion {
        self.end.as_ref().unwrap()
    }

    /// The whole text of a sequence that ended regularly.
    pub fn text(&self) -> String {
        self.pieces.concat() + &self.completion().tail
    }
}

/// Reads a stream to its end: tokens, one end, nothing more.
pub fn answer(mut stream: TokenStream) -> Answer {
    let (mut given, mut tokens, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
    let end = loop {
        match next(&mut stream).unwrap() {
            TokenEvent::Given(token) => given.push((token.id, token.logprob)),
            TokenEvent::Token(token) => {
                tokens.push(token.id);
                pieces.push(token.text);
            }
            TokenEvent::Finished(completion) => break Ok(completion),
            TokenEvent::Failed(error, _) => break Err(error),
        }
    };
    assert_eq!(next(&mut stream), None, "nothing comes after the end");
    Answer { given, tokens, pieces, end }
}
