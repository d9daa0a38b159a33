use std::{
    num::{NonZeroU32, NonZeroUsize},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::Stream;
use tokio::sync::mpsc;

use super::{Load, QueueLimits};
use crate::{
    adapter::AdapterLease,
    domain::{
        ContextWindow, ModelKind, ModelProfile, SamplingParams, Scoring, SequenceError, TenantId, Timings,
        TokenEvent,
    },
    grammar::Compiled,
    runner::Fetch,
};

/// One sequence, ready to run: everything in it has been checked against the adapter and the model.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who asks.
    pub tenant: TenantId,
    /// The tenant's share of the machine beside the others'.
    pub weight: NonZeroU32,
    /// The adapter generation that it runs with, held until its last token; `None` is the bare backbone.
    pub adapter: Option<AdapterLease>,
    /// Prompt token ids, at least one, every id below the vocabulary size.
    pub tokens: Vec<u32>,
    /// Tokens that the answer begins with, ids below the vocabulary size.
    pub given: Vec<u32>,
    /// Which of the tokens above are scored.
    pub scoring: Scoring,
    /// How a token is drawn; its seed is set.
    pub sampling: SamplingParams,
    /// Most tokens to generate; at least one, or none where tokens are scored.
    pub max_tokens: u32,
    /// No end token before this many tokens.
    pub min_tokens: u32,
    /// Generation ends in front of any of these.
    pub stop: Vec<String>,
    /// What the generated text must be; `None` is any text.
    pub grammar: Option<Arc<Compiled>>,
    /// Larger runs earlier, among the tenant's own.
    pub priority: i32,
    /// When to give up.
    pub deadline: Option<Instant>,
}

impl Submission {
    /// What it counts in the queue: prompt tokens and tokens that it may generate.
    pub(crate) fn cost(&self) -> usize {
        self.tokens.len().saturating_add(self.answer())
    }

    /// Most tokens of the answer, those given counted.
    fn answer(&self) -> usize {
        self.given.len().saturating_add(self.max_tokens as usize)
    }

    /// Whether there is a token to score or to generate.
    fn has_aim(&self, kind: ModelKind) -> bool {
        let scores = match self.scoring {
            Scoring::Off => false,
            Scoring::Prompt => kind == ModelKind::Causal && self.tokens.len() > 1,
            Scoring::Given => !self.given.is_empty(),
        };
        self.max_tokens > 0 || scores
    }
}

/// Why the engine did not take a sequence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The waiting queue is full.
    #[error(
        "{waiting} sequences of {tokens} tokens are waiting and this server queues no more: retry in {} s",
        retry_in.as_secs()
    )]
    Overloaded {
        /// Sequences in the queue now.
        waiting: usize,
        /// Their prompt tokens and the tokens that they may generate.
        tokens: usize,
        /// When, at the pace measured, those will be in work.
        retry_in: Duration,
    },
    /// There are no prompt tokens, or nothing to do behind them.
    #[error("a sequence needs a prompt token, and a token to generate or to score")]
    Empty,
    /// A token id beyond the embedding table.
    #[error("token id {token} is outside the vocabulary of {vocab}")]
    Token {
        /// The first such id.
        token: u32,
        /// Rows of the table.
        vocab: usize,
    },
    /// The prompt, or the answer, is longer than the adapter or the model takes.
    #[error("the prompt has {rows} rows and at most {limit} are taken: shorten it")]
    TooLong {
        /// Rows of the prompt, with the soft prompt where that counts.
        rows: usize,
        /// Rows taken.
        limit: usize,
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
        let draining = self.load.is_draining();
        let error = if draining { SequenceError::Draining } else { SequenceError::Internal };
        TokenEvent::Failed(error, Timings::default())
    }
}

impl Stream for TokenStream {
    type Item = TokenEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TokenEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.events.poll_recv(context)).unwrap_or_else(|| self.lost());
        self.ended = !matches!(event, TokenEvent::Given(_) | TokenEvent::Token(_));
        Poll::Ready(Some(event))
    }
}

/// The way to the engine's thread. Cheap to clone; every clone speaks to the same engine.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    model: Arc<ModelProfile>,
    commands: std::sync::mpsc::Sender<Command>,
    load: Arc<Load>,
    queue: QueueLimits,
    /// K/V blocks in the pool, and positions a block; unlimited when not said.
    pool: Option<(usize, NonZeroUsize)>,
    fetch: Fetch,
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

impl EngineHandle {
    /// A handle and the engine's end of it.
    pub fn channel(
        model: Arc<ModelProfile>,
        queue: QueueLimits,
    ) -> (Self, std::sync::mpsc::Receiver<Command>) {
        let (commands, inbox) = std::sync::mpsc::channel();
        (Self { model, commands, load: Arc::default(), queue, pool: None, fetch: Fetch::default() }, inbox)
    }

    /// Refuses at once what could never fit a pool of `blocks` K/V blocks of `block_size` positions.
    #[must_use]
    pub fn with_pool(self, blocks: usize, block_size: NonZeroUsize) -> Self {
        Self { pool: Some((blocks, block_size)), ..self }
    }

    /// Has adapters brought near the model by `fetch` while their requests wait.
    #[must_use]
    pub fn with_fetch(self, fetch: Fetch) -> Self {
        Self { fetch, ..self }
    }

    /// The resident backbone.
    pub fn model(&self) -> &Arc<ModelProfile> {
        &self.model
    }

    /// The engine's load now.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Whether the queue takes anything now, so that nothing is loaded for a request that would be turned away.
    ///
    /// # Errors
    /// When it is full.
    pub fn room(&self) -> Result<(), SubmitError> {
        self.load.room(self.queue)
    }

    /// Queues a sequence; never blocks.
    ///
    /// # Errors
    /// As [`EngineHandle::submit_all`].
    pub fn submit(&self, submission: Submission) -> Result<TokenStream, SubmitError> {
        let mut streams = self.submit_all(vec![submission])?;
        streams.pop().ok_or(SubmitError::Stopped)
    }

    /// Queues all of them or none; never blocks.
    ///
    /// # Errors
    /// When the queue has not enough room, one of them can't be run, the server drains or the engine is gone.
    pub fn submit_all(&self, submissions: Vec<Submission>) -> Result<Vec<TokenStream>, SubmitError> {
        submissions.iter().try_for_each(|submission| self.check(submission))?;
        if self.load.is_draining() {
            return Err(SubmitError::Draining);
        }
        let costs: Vec<usize> = submissions.iter().map(Submission::cost).collect();
        self.load.enter(costs.len(), costs.iter().sum(), self.queue)?;
        submissions
            .iter()
            .filter_map(|submission| submission.adapter.as_ref())
            .for_each(|lease| self.fetch.bring(lease));
        let mut sent = 0;
        let streams = submissions.into_iter().map(|submission| {
            let stream = self.send(submission)?;
            sent += 1;
            Ok(stream)
        });
        let streams = streams.collect();
        // Who was sent is in the engine's account, or went down with it.
        self.load.leave(costs.len() - sent, costs[sent..].iter().sum());
        streams
    }

    /// Hands one sequence over.
    fn send(&self, submission: Submission) -> Result<TokenStream, SubmitError> {
        let (sender, events) = mpsc::unbounded_channel();
        let arrival = Arrival { submission, arrived: Instant::now(), events: sender };
        self.commands.send(Command::Submit(Box::new(arrival))).map_err(|_| {
            // The drain may have begun and ended since the look at it.
            let draining = self.load.is_draining();
            if draining { SubmitError::Draining } else { SubmitError::Stopped }
        })?;
        Ok(TokenStream { events, load: Arc::clone(&self.load), ended: false })
    }

    /// What the engine relies on, whoever submits: one bad sequence would fail the step of all its neighbours.
    fn check(&self, submission: &Submission) -> Result<(), SubmitError> {
        let (tokens, vocab) = (&submission.tokens, self.model.vocab_size);
        if tokens.is_empty() || !submission.has_aim(self.model.kind) {
            return Err(SubmitError::Empty);
        }
        if let Some(&token) = tokens.iter().chain(&submission.given).find(|&&token| token as usize >= vocab) {
            return Err(SubmitError::Token { token, vocab });
        }
        let weights = submission.adapter.as_ref().map(|lease| lease.weights());
        let rows = tokens.len() + weights.map_or(0, |weights| weights.prompt_length());
        let s = weights.and_then(|weights| weights.max_length()).unwrap_or(usize::MAX);
        if tokens.len() > s {
            return Err(SubmitError::TooLong { rows: tokens.len(), limit: s });
        }
        let limit = self.model.context.max_prompt_rows(submission.answer());
        if rows > limit {
            return Err(SubmitError::TooLong { rows, limit });
        }
        let (answer, limit) = (submission.answer(), self.model.context.max_new_tokens(rows));
        if answer > limit {
            return Err(SubmitError::TooLong { rows: answer, limit });
        }
        self.check_fits(submission)
    }

    fn check_fits(&self, submission: &Submission) -> Result<(), SubmitError> {
        let Some((pool, block_size)) = self.pool else { return Ok(()) };
        let virtual_tokens = submission.adapter.as_ref().map_or(0, |lease| lease.weights().prompt_length());
        let (prompt, new) = (virtual_tokens + submission.tokens.len(), submission.answer());
        let needed = match self.model.context {
            ContextWindow::Apart { .. } => prompt.div_ceil(block_size.get()) + new.div_ceil(block_size.get()),
            ContextWindow::Shared { .. } => prompt.saturating_add(new).div_ceil(block_size.get()),
        };
        if needed > pool { Err(SubmitError::NeverFits { needed, pool }) } else { Ok(()) }
    }

    /// Begins the drain: nothing new is taken, what runs may finish until `deadline`.
    pub fn drain(&self, deadline: Instant) {
        self.load.drain();
        // A failed send means that the engine has ended already, which is what a drain wants.
        let _ = self.commands.send(Command::Drain { deadline });
    }
}
