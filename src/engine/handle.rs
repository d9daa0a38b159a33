use std::{
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use futures::Stream;
use tokio::sync::mpsc;

use crate::{
    adapter::AdapterLease,
    domain::{ModelProfile, SamplingParams, SequenceError, TenantId, TokenEvent},
};

/// One sequence, ready to run: everything in it has been checked against the adapter and the model.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who asks.
    pub tenant: TenantId,
    /// The adapter generation that it runs with, held until its last token; `None` is the bare backbone.
    pub adapter: Option<AdapterLease>,
    /// Prompt token ids, at least one, every id below the vocabulary size.
    pub tokens: Vec<u32>,
    /// How a token is drawn; its seed is set.
    pub sampling: SamplingParams,
    /// Most tokens to generate, at least one.
    pub max_tokens: u32,
    /// No end token before this many tokens.
    pub min_tokens: u32,
    /// Generation ends in front of any of these.
    pub stop: Vec<String>,
    /// Larger runs earlier.
    pub priority: i32,
    /// When to give up.
    pub deadline: Option<Instant>,
}

/// Why the engine did not take a sequence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The waiting queue is full.
    #[error("{waiting} requests are waiting, the most this server queues: retry later")]
    Overloaded {
        /// Sequences in the queue now.
        waiting: usize,
    },
    /// The sequence could never fit, even alone.
    #[error("this request needs {needed} K/V blocks and the whole pool has {pool}: shorten it")]
    NeverFits {
        /// Blocks that the sequence needs at its longest.
        needed: usize,
        /// Blocks in the pool.
        pool: usize,
    },
    /// The server is shutting down.
    #[error("the server is shutting down: retry on another replica")]
    Draining,
    /// The engine's thread is gone.
    #[error("the engine has stopped: the server's log says why")]
    Stopped,
}

/// The events of one sequence: tokens, then exactly one end, whatever becomes of the engine. Dropping it cancels the
/// sequence.
#[derive(Debug)]
pub struct TokenStream {
    events: mpsc::UnboundedReceiver<TokenEvent>,
    load: Arc<Load>,
    ended: bool,
}

impl TokenStream {
    /// What to tell of a sequence that the engine let fall without a word: it was gone before it looked.
    fn lost(&self) -> TokenEvent {
        let draining = self.load.draining.load(Ordering::Acquire);
        TokenEvent::Failed(if draining { SequenceError::Draining } else { SequenceError::Internal })
    }
}

impl Stream for TokenStream {
    type Item = TokenEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TokenEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.events.poll_recv(context)).unwrap_or_else(|| self.lost());
        self.ended = !matches!(event, TokenEvent::Token(_));
        Poll::Ready(Some(event))
    }
}

/// The way to the engine's thread. Cheap to clone; every clone speaks to the same engine.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    model: Arc<ModelProfile>,
    commands: std::sync::mpsc::Sender<Command>,
    load: Arc<Load>,
    queue_limit: usize,
    /// K/V blocks in the pool, and positions a block; unlimited when not said.
    pool: Option<(usize, NonZeroUsize)>,
}

/// A sequence on its way to the engine, with the road back to its client.
#[derive(Debug)]
pub struct Arrival {
    /// What to run.
    pub submission: Submission,
    /// When it was submitted.
    pub arrived: Instant,
    /// Where its events go.
    pub events: mpsc::UnboundedSender<TokenEvent>,
}

/// What the engine's thread is told.
#[derive(Debug)]
pub enum Command {
    /// Run a sequence.
    Submit(Box<Arrival>),
    /// Take no more; stop when the last sequence ends or at the deadline.
    Drain {
        /// When to fail what is left.
        deadline: Instant,
    },
}

/// The engine's load, written by its thread and by submitters, read by anyone.
#[derive(Debug, Default)]
pub struct Load {
    /// Sequences submitted and not yet started.
    pub waiting: AtomicUsize,
    /// Sequences started and not yet ended.
    pub running: AtomicUsize,
    /// Whether a drain has begun.
    pub draining: AtomicBool,
}

impl EngineHandle {
    /// A handle and the engine's end of it.
    pub fn channel(
        model: Arc<ModelProfile>,
        queue_limit: usize,
    ) -> (Self, std::sync::mpsc::Receiver<Command>) {
        let (commands, inbox) = std::sync::mpsc::channel();
        (Self { model, commands, load: Arc::default(), queue_limit, pool: None }, inbox)
    }

    /// Refuses at once what could never fit a pool of `blocks` K/V blocks of `block_size` positions.
    #[must_use]
    pub fn with_pool(self, blocks: usize, block_size: NonZeroUsize) -> Self {
        Self { pool: Some((blocks, block_size)), ..self }
    }

    /// The resident backbone.
    pub fn model(&self) -> &Arc<ModelProfile> {
        &self.model
    }

    /// The engine's load now.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Queues a sequence; never blocks.
    ///
    /// # Errors
    /// When the queue is full, the sequence is too large, the server drains or the engine is gone.
    pub fn submit(&self, submission: Submission) -> Result<TokenStream, SubmitError> {
        self.check_fits(&submission)?;
        if self.load.draining.load(Ordering::Acquire) {
            return Err(SubmitError::Draining);
        }
        let place = |waiting: usize| (waiting < self.queue_limit).then_some(waiting + 1);
        self.load
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, place)
            .map_err(|waiting| SubmitError::Overloaded { waiting })?;
        let (sender, events) = mpsc::unbounded_channel();
        let arrival = Arrival { submission, arrived: Instant::now(), events: sender };
        self.commands.send(Command::Submit(Box::new(arrival))).map_err(|_| {
            self.load.waiting.fetch_sub(1, Ordering::AcqRel);
            // The drain may have begun and ended since the look above.
            let draining = self.load.draining.load(Ordering::Acquire);
            if draining { SubmitError::Draining } else { SubmitError::Stopped }
        })?;
        Ok(TokenStream { events, load: Arc::clone(&self.load), ended: false })
    }

    fn check_fits(&self, submission: &Submission) -> Result<(), SubmitError> {
        let Some((pool, block_size)) = self.pool else { return Ok(()) };
        let virtual_tokens = submission.adapter.as_ref().map_or(0, |lease| lease.weights().prompt_length());
        let prompt = (virtual_tokens + submission.tokens.len()).div_ceil(block_size.get());
        let needed = prompt + (submission.max_tokens as usize).div_ceil(block_size.get());
        if needed > pool { Err(SubmitError::NeverFits { needed, pool }) } else { Ok(()) }
    }

    /// Begins the drain: nothing new is taken, what runs may finish until `deadline`.
    pub fn drain(&self, deadline: Instant) {
        self.load.draining.store(true, Ordering::Release);
        // A failed send means that the engine has ended already, which is what a drain wants.
        let _ = self.commands.send(Command::Drain { deadline });
    }
}
