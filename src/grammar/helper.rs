//! Masks are computed while the model runs: a thread of its own takes the work, and who needs a mask that nobody has begun with
//! computes it himself.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
};

use llguidance::Matcher;

use super::{Compiled, guide::follow};
use crate::domain::GrammarStuck;

/// A matcher with what it allows next.
pub(super) struct Ready {
    pub matcher: Matcher,
    /// Bit `id % 32` of word `id / 32`.
    pub mask: Vec<u32>,
}

/// What is to do for a sequence.
pub(super) enum Work {
    /// The next mask of a matcher.
    Mask(Box<Matcher>),
    /// The same behind the first token of a text.
    Begin(Arc<Compiled>, u32),
}

/// What came of it: nothing where the text is whole.
type Outcome = Result<Option<Box<Ready>>, GrammarStuck>;

/// One sequence's place for work: what is to do, or what came of it.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Default)]
enum State {
    /// Nothing to do and nothing to fetch.
    #[default]
    Empty,
    /// Nobody has begun.
    Waiting(Work),
    /// Someone computes.
    Running,
    Done(Outcome),
}

/// The thread. It ends when the last handle is gone.
#[derive(Debug, Clone)]
pub(super) struct Helper {
    work: mpsc::Sender<Arc<Slot>>,
}

impl Helper {
    pub fn spawn() -> std::io::Result<Self> {
        let (work, inbox) = mpsc::channel::<Arc<Slot>>();
        let run = move || inbox.into_iter().for_each(|slot| slot.work());
        std::thread::Builder::new().name("grammar".to_owned()).spawn(run)?;
        Ok(Self { work })
    }

    /// Asks for `work`, whose outcome is to be fetched from `slot`.
    pub fn ask(&self, slot: &Arc<Slot>, work: Work) {
        *slot.lock() = State::Waiting(work);
        // Without the thread, who fetches the mask computes it.
        let _ = self.work.send(Arc::clone(slot));
    }
}

impl Slot {
    /// Does what waits, if nobody has begun.
    fn work(&self) {
        let mut state = self.lock();
        if !matches!(*state, State::Waiting(_)) {
            return;
        }
        let State::Waiting(work) = mem::replace(&mut *state, State::Running) else { return };
        drop(state);
        // Whoever waits must not wait for ever.
        let outcome = catch_unwind(AssertUnwindSafe(|| work.done()));
        *self.lock() = State::Done(outcome.unwrap_or(Err(GrammarStuck::TooComplex)));
        self.done.notify_all();
    }

    /// What was asked for. Computes it where nobody has begun, and waits where somebody has: for milliseconds, since a mask's cost
    /// is bounded.
    pub fn fetch(&self) -> Outcome {
        let mut state = self.lock();
        loop {
            match mem::take(&mut *state) {
                State::Done(outcome) => return outcome,
                State::Waiting(work) => {
                    drop(state);
                    return work.done();
                }
                State::Running => {
                    *state = State::Running;
                    state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                State::Empty => return Err(GrammarStuck::TooComplex),
            }
        }
    }

    /// Lets what waits be: nobody wants it any more.
    pub fn cancel(&self) {
        let mut state = self.lock();
        if matches!(*state, State::Waiting(_)) {
            *state = State::Empty;
        }
    }

    /// Nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    fn done(self) -> Outcome {
        let matcher = match self {
            Self::Mask(matcher) => Some(*matcher),
            Self::Begin(grammar, token) => follow(grammar.fork(token), token)?,
        };
        matcher.map(|matcher| mask(matcher).map(Box::new)).transpose()
    }
}

/// What `matcher` allows next. It catches its own panics.
pub(super) fn mask(mut matcher: Matcher) -> Result<Ready, GrammarStuck> {
    let (Ok(allowed), Ok(env)) = (matcher.compute_mask(), matcher.tok_env()) else {
        return Err(stuck(&matcher));
    };
    let mut mask: Vec<u32> = allowed.into();
    // The last word is the lost space, which no model can choose.
    let lost = env.tok_trie().vocab_size() - 1;
    mask.truncate(lost.div_ceil(32));
    if let Some(last) = mask.get_mut(lost / 32) {
        *last &= !(1 << (lost % 32));
    }
    if mask.iter().all(|&word| word == 0) { Err(GrammarStuck::NoToken) } else { Ok(Ready { matcher, mask }) }
}

/// Why a matcher does not go on.
pub(super) fn stuck(matcher: &Matcher) -> GrammarStuck {
    // A matcher that has failed keeps its reason only as text (a test holds it).
    let reason = matcher.get_error().unwrap_or_default();
    if reason.starts_with("NoExtension") { GrammarStuck::NoToken } else { GrammarStuck::TooComplex }
}
