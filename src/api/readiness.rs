use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use super::{ApiError, ErrorCode};

/// Where the server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The model is being loaded.
    Starting,
    /// Requests are served.
    Ready,
    /// Nothing new is taken; what runs may finish.
    Draining,
}

/// The state that `/health/ready` tells, shared between the application and its front doors. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<AtomicU8>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(State::Starting as u8)))
    }
}

impl Readiness {
    /// Moves on to `state`.
    pub fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Release);
    }

    /// The state now.
    pub fn state(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            s if s == State::Starting as u8 => State::Starting,
            s if s == State::Ready as u8 => State::Ready,
            _ => State::Draining,
        }
    }

    /// Whether requests are served.
    ///
    /// # Errors
    /// `not_ready` while the model loads, `draining` at the end.
    pub fn check(&self) -> Result<(), ApiError> {
        match self.state() {
            State::Ready => Ok(()),
            State::Starting => Err(ApiError::new(
                ErrorCode::NotReady,
                "the model is being loaded: wait until /health/ready answers 200",
            )),
            State::Draining => Err(ApiError::new(
                ErrorCode::Draining,
                "the server is shutting down: retry on another replica",
            )),
        }
    }
}
