use std::ops::Range;

use super::SequenceId;
use crate::kv::BlockCopy;

/// What one step computes. A runner copies first, in order, and encodes then: sequences that it finishes may be decoded in
/// the same step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// K/V rows that get a place of their own before anything is written.
    pub copies: Vec<BlockCopy>,
    /// Prompts that go through some encoder blocks.
    pub encode: Option<Encode>,
    /// Decoder rows, by sequence.
    pub decode: Vec<Decode>,
}

/// A cohort of prompts on its way through the encoder: a few blocks each step, so that decoding does not stall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encode {
    /// Names the cohort; another number than in the last step means that the former one was given up.
    pub cohort: u64,
    /// Its sequences, in order.
    pub sequences: Vec<SequenceId>,
    /// The encoder blocks to run now.
    pub layers: Range<usize>,
    /// Whether these are the last: the output's K/V go to the sequences' prompt tables.
    pub last: bool,
}

/// Decoder rows of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decode {
    /// The sequence.
    pub sequence: SequenceId,
    /// One row as a rule; more for a prompt, and after a preemption, whose rows are computed again.
    pub rows: Range<usize>,
    /// Whether the last row's logits choose a token: the rows reach as far as the sequence does.
    pub samples: bool,
    /// Those of the rows whose logits score the token behind them, which is known.
    pub scores: Range<usize>,
}

impl StepPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.encode.is_none() && self.decode.is_empty()
    }

    /// Sequences that the step works on.
    pub fn sequences(&self) -> impl Iterator<Item = SequenceId> + '_ {
        let encoded = self.encode.iter().flat_map(|encode| encode.sequences.iter().copied());
        encoded.chain(self.decode.iter().map(|decode| decode.sequence))
    }

    pub(super) fn clear(&mut self) {
        self.copies.clear();
        self.encode = None;
        self.decode.clear();
    }
}
