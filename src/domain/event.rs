use std::time::Duration;

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model produced its end token.
    Stop,
    /// `max_tokens` or the model's limit was reached.
    Length,
    /// A stop string appeared.
    StopSequence,
    /// The client went away.
    Cancelled,
}

impl FinishReason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::StopSequence => "stop_sequence",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A token with the log-probability that the raw distribution gave it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredToken {
    /// Its id.
    pub id: u32,
    /// Natural logarithm of its probability before penalties, temperature and masks.
    pub logprob: f32,
}

/// A generated token as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedToken {
    /// The choice.
    pub id: u32,
    /// Text that became certain with this token; may be empty, and pieces joined are the whole text.
    pub text: String,
    /// Its log-probability, when the request asked for log-probabilities.
    pub logprob: Option<f32>,
    /// The most probable alternatives, best first.
    pub top: Vec<ScoredToken>,
}

/// A token that was given, not chosen, and how probable it was where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenToken {
    /// Its id.
    pub id: u32,
    /// Natural logarithm of its probability before penalties, temperature and masks.
    pub logprob: f32,
    /// The most probable tokens at its place, best first; as many as the request asked for.
    pub top: Vec<ScoredToken>,
}

/// Which of the tokens that a sequence is given are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scoring {
    /// None.
    #[default]
    Off,
    /// The prompt's from the second on: a decoder-only model's.
    Prompt,
    /// Those that the answer begins with.
    Given,
}

/// Token counts of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt, the tokenizer's own included.
    pub prompt_tokens: usize,
    /// Soft-prompt rows that the adapter put in front.
    pub virtual_tokens: usize,
    /// Tokens generated, the end token not counted.
    pub completion_tokens: usize,
    /// Prompt tokens whose K/V were there already; virtual tokens are not counted.
    pub cached_tokens: usize,
}

/// Where the time of one sequence went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// From submission to the first step that worked on it.
    pub queue: Duration,
    /// From then to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

impl Timings {
    /// The sum of all parts.
    pub fn total(&self) -> Duration {
        self.queue + self.prefill + self.decode
    }
}

/// The end of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Why it ended.
    pub reason: FinishReason,
    /// Text that was still held back (a possible stop string, an unfinished character).
    pub tail: String,
    /// The end token that the model chose, which says nothing, when the request asked for log-probabilities.
    pub end: Option<GeneratedToken>,
    /// Token counts.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
}

/// Why a text can't go on as its grammar wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GrammarStuck {
    /// No token of the vocabulary writes what must come next.
    #[error(
        "no token of this model can go on where the text stands: the grammar wants characters that it has no token for"
    )]
    NoToken,
    /// What may come next takes more computing or memory to find out than a step may cost.
    #[error("what may come next takes more computing than a step may cost: make the grammar simpler")]
    TooComplex,
}

/// Why a sequence failed after it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// Its deadline passed.
    #[error("the request did not finish within its timeout_ms: raise it or lower max_tokens")]
    DeadlineExceeded(Duration),
    /// Its text can't go on as its grammar wants.
    #[error("the text can't follow its grammar to the end: {0}")]
    Grammar(#[from] GrammarStuck),
    /// The server is shutting down and the drain time is over.
    #[error("the server is shutting down: retry on another replica")]
    Draining,
    /// A step failed; the details are in the server's log.
    #[error("the model failed on this request: the server's log has the cause under this request's id")]
    Internal,
}

/// What the engine says of a sequence, in order: tokens, then one end.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenEvent {
    /// The next of the tokens that were given to be scored; all of them come before any that is generated behind them.
    Given(GivenToken),
    /// The next token.
    Token(GeneratedToken),
    /// The regular end.
    Finished(Completion),
    /// The irregular end, and where the time went until then.
    Failed(SequenceError, Timings),
}
