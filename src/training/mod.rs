//! Makes adapters: gradients of P, A and B over a frozen backbone, and nothing of its weights.
//!
//! The forward pass is inference's own, over whole texts in ragged batches ([`Backbone`]); the way back lives beside each
//! kernel. P has one learning rate, A and B another ([`Optimiser`]), under one linear warm-up and decay. A run
//! ([`Run`]) is a function of its settings, its data and its seed: resumed from a checkpoint it gives the same losses to the bit.

mod adamw;
mod backbone;
mod checkpoint;
mod data;
mod error;
mod files;
mod init;
mod journal;
mod order;
mod output;
mod parameters;
mod run;
mod settings;
mod tasks;

pub use adamw::Optimiser;
pub use backbone::Backbone;
pub use checkpoint::{Best, Checkpoint, State};
pub use data::{DataError, Example, Form, few_shot, read_examples};
pub use error::{Kept, TrainError};
pub use files::write_whole;
pub use init::{InitError, Start, start};
pub use journal::{Entry, Journal, read_journal};
pub use order::Order;
pub use output::Output;
pub use parameters::{AdapterShape, Gradients, Parameters, Tensors};
pub use run::{Judge, Observer, Outcome, Progress, Run, Tokenised, Verdict};
pub use settings::{Rates, Settings};
pub use tasks::{TASKS, TaskTemplate};

#[cfg(test)]
mod tests;
