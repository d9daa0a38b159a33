#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod answers;
mod ends;
mod failures;
mod queue;
mod rig;
