use tokio::sync::watch;

use super::{ApiError, ErrorCode};

/// Where the server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The model is being loaded.
    Starting,
    /// Requests are served, and load balancers are told to wait for the pinned adapters.
    Pinning,
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

    /// Moves on to `Ready`, unless the server has begun to end. Whether it has moved.
    pub fn open(&self) -> bool {
        self.0.send_if_modified(|state| {
            let starts = matches!(state, State::Starting | State::Pinning);
            if starts {
                *state = State::Ready;
            }
            starts
        })
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
            State::Pinning | State::Ready | State::Leaving => Ok(()),
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
    /// As [`Readiness::check`], `not_ready` while pinned adapters are waited for, and `draining` as soon as the server is to
    /// end.
    pub fn invite(&self) -> Result<(), ApiError> {
        match self.state() {
            State::Pinning => Err(ApiError::new(
                ErrorCode::NotReady,
                "pinned adapters are not held in memory yet, and --wait-for-pinned waits for all of them: the log names those \
                 that can't be",
            )),
            State::Leaving => Err(leaving()),
            State::Starting | State::Ready | State::Draining => self.check(),
        }
    }
}

fn leaving() -> ApiError {
    ApiError::new(ErrorCode::Draining, "the server is shutting down: retry on another replica")
}
