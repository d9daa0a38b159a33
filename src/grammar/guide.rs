use std::{fmt, mem, sync::Arc};

use llguidance::{Matcher, api::StopReason};

use super::{
    Compiled,
    helper::{Ready, Slot, Work, stuck},
};
use crate::domain::GrammarStuck;

/// Follows one sequence through its grammar. It lives on the engine's thread: a token moves it, and the next mask is computed
/// elsewhere while the model runs.
pub struct Guide {
    grammar: Arc<Compiled>,
    slot: Arc<Slot>,
    position: Position,
}

enum Position {
    /// Before the first token.
    Start,
    /// The mask is being computed.
    Ahead,
    /// The mask is here.
    Here(Box<Ready>),
    /// The text is whole, and nothing could come behind it.
    Whole,
    Stuck(GrammarStuck),
}

/// Where a token leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More may come.
    GoesOn,
    /// The text is whole, and nothing could come behind it.
    Whole,
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = match &self.position {
            Position::Start => "start",
            Position::Ahead | Position::Here(_) => "inside",
            Position::Whole => "whole",
            Position::Stuck(_) => "stuck",
        };
        f.debug_tuple("Guide").field(&position).finish()
    }
}

impl Guide {
    /// At the start of a text.
    pub fn new(grammar: Arc<Compiled>) -> Self {
        Self { grammar, slot: Arc::default(), position: Position::Start }
    }

    /// The tokens that may come next, the end token where the text may end: bit `id % 32` of word `id / 32`.
    ///
    /// # Errors
    /// When no token can, or finding out would cost too much.
    pub fn mask(&mut self) -> Result<&[u32], GrammarStuck> {
        self.settle();
        match &self.position {
            Position::Start => Ok(self.grammar.first_mask()),
            Position::Here(ready) => Ok(&ready.mask),
            Position::Whole => Ok(self.grammar.end_mask()),
            Position::Stuck(why) => Err(*why),
            Position::Ahead => unreachable!("settled"),
        }
    }

    /// Why the text can't go on, where it can't.
    pub fn stuck(&self) -> Option<GrammarStuck> {
        if let Position::Stuck(why) = self.position { Some(why) } else { None }
    }

    /// Whether something else than the end may come next.
    pub fn has_more(&mut self) -> bool {
        let ends = Arc::clone(&self.grammar);
        self.mask().is_ok_and(|mask| mask.iter().zip(ends.end_mask()).any(|(&may, &end)| may & !end != 0))
    }

    /// Takes the token that was chosen; not the end token, with which the text is over.
    ///
    /// # Errors
    /// As [`Guide::mask`]; and for a token that the mask does not allow.
    pub fn advance(&mut self, token: u32) -> Result<Progress, GrammarStuck> {
        self.settle();
        let next = match mem::replace(&mut self.position, Position::Whole) {
            // Whether the text is whole with its first token is then found out meanwhile: the end token follows.
            Position::Start if self.grammar.begins_slowly() => {
                Ok(Some(Work::Begin(Arc::clone(&self.grammar), token)))
            }
            Position::Start => follow(self.grammar.fork(token), token).map(mask_of),
            Position::Here(ready) => follow(ready.matcher, token).map(mask_of),
            Position::Stuck(why) => Err(why),
            Position::Whole | Position::Ahead => Err(GrammarStuck::NoToken),
        };
        match next {
            Ok(Some(work)) => {
                self.grammar.helper().ask(&self.slot, work);
                self.position = Position::Ahead;
                Ok(Progress::GoesOn)
            }
            Ok(None) => Ok(Progress::Whole),
            Err(why) => {
                self.position = Position::Stuck(why);
                Err(why)
            }
        }
    }

    /// Fetches the mask that was asked for.
    fn settle(&mut self) {
        if matches!(self.position, Position::Ahead) {
            self.position = match self.slot.fetch() {
                Ok(Some(ready)) => Position::Here(ready),
                Ok(None) => Position::Whole,
                Err(why) => Position::Stuck(why),
            };
        }
    }
}

impl Drop for Guide {
    fn drop(&mut self) {
        self.slot.cancel();
    }
}

/// The work behind a token, where the text is not whole.
fn mask_of(matcher: Option<Matcher>) -> Option<Work> {
    matcher.map(|matcher| Work::Mask(Box::new(matcher)))
}

/// Moves a matcher by a token. `None` when the text is whole then.
pub(super) fn follow(mut matcher: Matcher, token: u32) -> Result<Option<Matcher>, GrammarStuck> {
    if matcher.consume_token(token).is_err() {
        return Err(stuck(&matcher));
    }
    match matcher.stop_reason() {
        StopReason::NotStopped => Ok(Some(matcher)),
        StopReason::NoExtension | StopReason::EndOfSentence => Ok(None),
        _ => Err(stuck(&matcher)),
    }
}
