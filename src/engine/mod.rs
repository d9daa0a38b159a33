//! The loop on its own thread, and the handle to it.

mod handle;

pub use handle::{Arrival, Command, EngineHandle, Load, Submission, SubmitError, TokenStream};
