use std::{collections::HashMap, num::NonZeroU32, ops::Range};

use super::{PromptPath, prefix::PrefixKeys, queue::Ticket};
use crate::{
    adapter::AdapterLease,
    domain::{Scoring, TenantId},
    grammar::Guide,
    kv::BlockTable,
    sampling::Sampler,
};

/// Names a sequence for as long as the process runs; grows in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// A sequence as it arrives: everything in it has been checked.
#[derive(Debug)]
pub struct NewSequence {
    /// Its name.
    pub id: SequenceId,
    /// Who asks.
    pub tenant: TenantId,
    /// The tenant's share of the machine beside the others'.
    pub weight: NonZeroU32,
    /// The generation that it runs with; held until the sequence is removed.
    pub adapter: Option<AdapterLease>,
    /// Prompt token ids, at least one.
    pub prompt: Vec<u32>,
    /// Tokens that the answer begins with; those that are generated come behind them.
    pub given: Vec<u32>,
    /// Which of the tokens above are scored.
    pub scoring: Scoring,
    /// How it draws its tokens.
    pub sampler: Sampler,
    /// What its text must be, and how far it is.
    pub guide: Option<Guide>,
    /// Most tokens to generate; at least one, or none where tokens are scored.
    pub max_tokens: usize,
    /// No end token before this many tokens.
    pub min_tokens: usize,
    /// Larger runs earlier, among the tenant's own.
    pub priority: i32,
}

impl NewSequence {
    /// Soft-prompt rows in front of the prompt, m.
    pub fn virtual_tokens(&self) -> usize {
        self.adapter.as_ref().map_or(0, |lease| lease.weights().prompt_length())
    }

    /// Rows of soft prompt and prompt, m + n.
    pub fn prompt_rows(&self) -> usize {
        self.virtual_tokens() + self.prompt.len()
    }

    /// Most rows of the prompt's table and of the decoder's own.
    pub(super) fn table_rows(&self, path: PromptPath) -> (usize, usize) {
        let answer = self.given.len().saturating_add(self.max_tokens);
        match path {
            PromptPath::Encoder { .. } => (self.prompt_rows(), answer),
            PromptPath::Decoder => (0, self.prompt_rows().saturating_add(answer)),
        }
    }
}

/// A live sequence.
#[derive(Debug)]
pub struct Sequence {
    /// What it arrived with.
    pub request: NewSequence,
    /// The answer so far: tokens given, then tokens generated.
    pub answer: Vec<u32>,
    /// Decoder rows whose K/V are in `past`. After an encoder, the start token is row 0 and token i is row i + 1; else the
    /// rows are soft prompt, prompt and generated tokens.
    pub computed: usize,
    /// K/V of the encoder's output, as the decoder reads it; filled when `encoded`, unused without an encoder.
    pub prompt: BlockTable,
    /// The decoder's own K/V.
    pub past: BlockTable,
    /// Whether the encoder is through with it.
    pub encoded: bool,
    /// Whether the prompt goes through the decoder itself.
    pub causal: bool,
    pub(super) keys: PrefixKeys,
    /// Prompt rows that were there when it was first admitted.
    pub(super) cached: Option<usize>,
    /// Rows below have scored their tokens.
    pub(super) scored_until: usize,
    pub(super) ticket: Ticket,
    /// Waits for this one to have computed what both begin with.
    pub(super) waits_for: Option<SequenceId>,
}

impl Sequence {
    pub(super) fn new(
        request: NewSequence,
        causal: bool,
        keys: PrefixKeys,
        ticket: Ticket,
        (prompt, past): (BlockTable, BlockTable),
    ) -> Self {
        Self {
            answer: request.given.clone(),
            request,
            computed: 0,
            prompt,
            past,
            encoded: false,
            causal,
            keys,
            cached: None,
            scored_until: 0,
            ticket,
            waits_for: None,
        }
    }

    /// Prompt tokens whose K/V were there already: they were not computed for this sequence.
    pub fn cached_tokens(&self) -> usize {
        self.cached.unwrap_or(0).saturating_sub(self.virtual_tokens()).min(self.request.prompt.len())
    }

    /// Soft-prompt rows in front of the prompt, m.
    pub fn virtual_tokens(&self) -> usize {
        self.request.virtual_tokens()
    }

    /// Rows that the encoder sees, m + n.
    pub fn prompt_rows(&self) -> usize {
        self.request.prompt_rows()
    }

    /// Tokens generated so far.
    pub fn generated(&self) -> usize {
        self.answer.len() - self.request.given.len()
    }

    /// Rows in front of the answer's: the prompt's, or the start token's.
    fn rows_before_answer(&self) -> usize {
        if self.causal { self.prompt_rows() } else { 1 }
    }

    /// Decoder rows to compute: up to the one whose logits choose the next token or, where none is chosen, score the last.
    pub fn decoder_rows(&self) -> usize {
        self.rows_before_answer() + self.answer.len() - usize::from(self.request.max_tokens == 0)
    }

    /// Whether all of its rows are computed and no token is to be chosen.
    pub fn is_scored(&self) -> bool {
        self.request.max_tokens == 0 && self.computed == self.decoder_rows()
    }

    /// The decoder rows whose logits score the token behind them, less those that have done it.
    pub(super) fn scoring_rows(&self) -> Range<usize> {
        let rows = match self.request.scoring {
            Scoring::Off => return 0..0,
            Scoring::Prompt if !self.causal => return 0..0,
            Scoring::Prompt => self.virtual_tokens()..self.prompt_rows() - 1,
            Scoring::Given => {
                let first = self.rows_before_answer() - 1;
                first..first + self.request.given.len()
            }
        };
        rows.start.max(self.scored_until)..rows.end.max(self.scored_until)
    }

    /// The token behind decoder row `row`, which is known.
    ///
    /// # Panics
    /// If it is not known: the row is the last one.
    pub fn token_behind(&self, row: usize) -> u32 {
        if !self.causal {
            return self.answer[row];
        }
        let (at, prompt) = (row + 1 - self.virtual_tokens(), &self.request.prompt);
        prompt.get(at).copied().unwrap_or_else(|| self.answer[at - prompt.len()])
    }

    /// Decoder rows that have no place in `past` yet.
    pub(super) fn missing_rows(&self) -> usize {
        self.decoder_rows() - self.past.len()
    }

    /// Whether the end token may not come yet.
    pub fn must_go_on(&self) -> bool {
        self.generated() < self.request.min_tokens
    }
}

/// The live sequences by name.
#[derive(Debug, Default)]
pub struct Sequences(HashMap<SequenceId, Sequence>);

impl Sequences {
    /// A live sequence; `None` once it was removed.
    pub fn get(&self, id: SequenceId) -> Option<&Sequence> {
        self.0.get(&id)
    }

    /// A live sequence, to change it.
    pub fn get_mut(&mut self, id: SequenceId) -> Option<&mut Sequence> {
        self.0.get_mut(&id)
    }

    /// Number of live sequences.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, sequence: Sequence) {
        self.0.insert(sequence.request.id, sequence);
    }

    pub(super) fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        self.0.remove(&id)
    }

    /// A sequence that one of the scheduler's own lists names.
    pub(super) fn listed(&mut self, id: SequenceId) -> &mut Sequence {
        self.0.get_mut(&id).expect("the scheduler lists live sequences only")
    }
}
