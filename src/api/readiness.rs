use tokio::sync::watch;

use super::{ApiError, ErrorCode};

/// Where the server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The model is being loaded.
    Starting,
    /// Requests are served.
    Ready,
    /// The server will end soon: requests are served, and load balancers are told to look elsewhere.
    Leaving,
    /// Nothing new is taken; what runs may finish.
    Draining,
}

/// The state that `/health/ready` tells, shared between the application and its front doors. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(watch::Sender<State>);

impl Default for Readiness {
    fn default() -> Self {
        Self(watch::Sender::new(State::Starting))
    }
}

impl Readiness {
    /// Moves on to `state`.
    pub fn set(&self, state: State) {
        self.0.send_replace(state);
    }

    /// The state now.
    pub fn state(&self) -> State {
        *self.0.borrow()
    }

    /// The state now and as it changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    /// Whether requests are served.
    ///
    /// # Errors
    /// `not_ready` while the model loads, `draining` at the end.
    pub fn check(&self) -> Result<(), ApiError> {
        match self.state() {
            State::Ready | State::Leaving => Ok(()),
            State::Starting => Err(ApiError::new(
                ErrorCode::NotReady,
                "the model is being loaded: wait until /health/ready answers 200",
            )),
            State::Draining => Err(leaving()),
        }
    }

    /// Whether new clients may be sent here.
    ///
    /// # Errors
    /// As [`Readiness::check`], and `draining` as soon as the server is to end.
    pub fn invite(&self) -> Result<(), ApiError> {
        if self.state() == State::Leaving { Err(leaving()) } else { self.check() }
    }
}

fn leaving() -> ApiError {
    ApiError::new(ErrorCode::Draining, "the server is shutting down: retry on another replica")
}
