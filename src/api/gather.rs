use futures::{Stream, StreamExt, stream};

use super::ApiError;
use crate::{
    domain::{Completion, FinishReason, GeneratedToken, GivenToken, Timings, TokenEvent, Usage},
    engine::TokenStream,
};

/// Which sequence of a request: the prompt's place and the choice's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which prompt.
    pub result: usize,
    /// Which of its choices.
    pub choice: usize,
}

/// One finished sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// All of its text.
    pub text: String,
    /// Why it ended.
    pub reason: FinishReason,
    /// The tokens that it was given to score, in order.
    pub given: Vec<GivenToken>,
    /// Its tokens, where the request wants log-probabilities; their texts joined are `text`.
    pub tokens: Vec<GeneratedToken>,
    /// The end token, where the model chose it and the request wants log-probabilities.
    pub end: Option<GeneratedToken>,
    /// Token counts.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
}

/// News of a sequence that a streaming client is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Which sequence.
    pub place: Place,
    /// How many pieces of it came before.
    pub position: usize,
    /// The token; `None` when text that was held back is released at the end.
    pub token: Option<GeneratedToken>,
    /// The text that became certain.
    pub text: String,
}

/// The events of all sequences of a request, as they come. Dropping it cancels them all.
pub type Events = stream::BoxStream<'static, (Place, TokenEvent)>;

/// Merges the streams of a request, by prompt and choice.
pub fn merge(streams: Vec<Vec<TokenStream>>) -> Events {
    let placed = |result: usize, choice: usize, events: TokenStream| {
        events.map(move |event| (Place { result, choice }, event))
    };
    let all = streams.into_iter().enumerate().flat_map(|(result, choices)| {
        choices.into_iter().enumerate().map(move |(choice, events)| placed(result, choice, events))
    });
    stream::select_all(all).boxed()
}

/// What has come of one sequence so far.
#[derive(Debug, Default)]
struct Partial {
    text: String,
    given: Vec<GivenToken>,
    tokens: Vec<GeneratedToken>,
    pieces: usize,
    end: Option<Completion>,
}

/// Puts the events of a request together.
#[derive(Debug)]
pub struct Gathering {
    results: Vec<Vec<Partial>>,
    keep_tokens: bool,
}

impl Gathering {
    /// For `prompts` prompts with `n` choices each; tokens are kept only when they are to be shown.
    pub fn new(prompts: usize, n: usize, keep_tokens: bool) -> Self {
        let choices = || (0..n).map(|_| Partial::default()).collect();
        Self { results: (0..prompts).map(|_| choices()).collect(), keep_tokens }
    }

    /// Takes one event; returns what a streaming client is told of it.
    ///
    /// # Errors
    /// When the event says that the sequence failed.
    pub fn take(&mut self, place: Place, event: TokenEvent) -> Result<Option<Piece>, ApiError> {
        let partial = &mut self.results[place.result][place.choice];
        match event {
            TokenEvent::Given(token) => {
                partial.given.push(token);
                Ok(None)
            }
            TokenEvent::Token(token) => {
                if self.keep_tokens {
                    partial.tokens.push(token.clone());
                }
                let text = token.text.clone();
                Ok(Some(partial.piece(place, Some(token), text)))
            }
            TokenEvent::Finished(mut end) => {
                let tail = std::mem::take(&mut end.tail);
                partial.end = Some(end);
                if let Some(last) = partial.tokens.last_mut() {
                    last.text.push_str(&tail);
                }
                Ok((!tail.is_empty()).then(|| partial.piece(place, None, tail)))
            }
            TokenEvent::Failed(error, _) => Err(error.into()),
        }
    }

    /// The tokens that a sequence was given, as far as they are scored.
    pub fn given(&self, place: Place) -> &[GivenToken] {
        &self.results[place.result][place.choice].given
    }

    /// The end of a sequence that has ended.
    pub fn end(&self, place: Place) -> Option<&Completion> {
        self.results[place.result][place.choice].end.as_ref()
    }

    /// The finished sequences, by prompt and choice.
    ///
    /// # Errors
    /// `internal` when a stream ended without saying how: its engine is gone.
    pub fn finish(self) -> Result<Vec<Vec<Choice>>, ApiError> {
        let finish = |choices: Vec<Partial>| choices.into_iter().map(Partial::finish).collect();
        self.results.into_iter().map(finish).collect()
    }
}

impl Partial {
    fn piece(&mut self, place: Place, token: Option<GeneratedToken>, text: String) -> Piece {
        self.text.push_str(&text);
        let position = self.pieces;
        self.pieces += 1;
        Piece { place, position, token, text }
    }

    fn finish(self) -> Result<Choice, ApiError> {
        let end = self.end.ok_or_else(ApiError::internal)?;
        let Completion { reason, usage, timings, end, .. } = end;
        Ok(Choice { text: self.text, given: self.given, reason, tokens: self.tokens, end, usage, timings })
    }
}

/// Runs a request to its end and returns the finished sequences, by prompt and choice.
///
/// # Errors
/// The first failure of a sequence; the others are then cancelled.
pub async fn collect(
    mut events: impl Stream<Item = (Place, TokenEvent)> + Unpin,
    mut gathering: Gathering,
) -> Result<Vec<Vec<Choice>>, ApiError> {
    while let Some((place, event)) = events.next().await {
        gathering.take(place, event)?;
    }
    gathering.finish()
}
