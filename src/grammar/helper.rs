//! Masks are computed while the model runs: a thread of its own takes the work, and who needs a mask that nobody has begun with
//! computes it himself.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
};

use llguidance::{Matcher, api::StopReason};

use crate::domain::GrammarStuck;

/// A matcher with what it allows next.
pub(super) struct Ready {
    pub matcher: Matcher,
    /// Bit `id % 32` of word `id / 32`.
    pub mask: Vec<u32>,
}

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
    Waiting(Box<Matcher>),
    /// Someone computes.
    Running,
    Done(Result<Box<Ready>, GrammarStuck>),
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

    /// Asks for the next mask of `matcher`, to be fetched from `slot`.
    pub fn ask(&self, slot: &Arc<Slot>, matcher: Matcher) {
        *slot.lock() = State::Waiting(Box::new(matcher));
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
        let State::Waiting(matcher) = mem::replace(&mut *state, State::Running) else { return };
        drop(state);
        let outcome = mask(*matcher);
        *self.lock() = State::Done(outcome.map(Box::new));
        self.done.notify_all();
    }

    /// The mask that was asked for. Computes it where nobody has begun, and waits where somebody has: for milliseconds, since a
    /// mask's cost is bounded.
    pub fn fetch(&self) -> Result<Ready, GrammarStuck> {
        let mut state = self.lock();
        loop {
            match mem::take(&mut *state) {
                State::Done(outcome) => return outcome.map(|ready| *ready),
                State::Waiting(matcher) => {
                    drop(state);
                    return mask(*matcher);
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
    match matcher.stop_reason() {
        StopReason::NoExtensionBias | StopReason::NoExtension => GrammarStuck::NoToken,
        _ => GrammarStuck::TooComplex,
    }
}
