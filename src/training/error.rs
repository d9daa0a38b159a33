use std::{fmt, path::PathBuf};

use super::{data::DataError, init::InitError};
use crate::adapter::{card::CardError, tensor::MatrixError, weights::WeightsError};

/// Why a run can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data can't be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The adapter has no start.
    #[error(transparent)]
    Init(#[from] InitError),
    /// Nothing would be trained.
    #[error("m = 0 and r = 0 leave nothing to train: give --prompt-length or --rank")]
    Nothing,
    /// A setting makes no sense.
    #[error("{flag}: {problem}")]
    Setting {
        /// The flag.
        flag: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An example does not fit.
    #[error("'{}' line {line}: the {what} has {found} tokens and {limit} are taken: {advice}", path.display())]
    TooLong {
        /// The data file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Source or target.
        what: &'static str,
        /// Its tokens.
        found: usize,
        /// The limit.
        limit: usize,
        /// What to do.
        advice: &'static str,
    },
    /// The model has not the positions.
    #[error("the model takes {rows} rows and m + s{plus} = {needed}: lower --prompt-length or --max-length")]
    NoRoom {
        /// Rows of the model.
        rows: usize,
        /// What stands beside m and s in the sum.
        plus: &'static str,
        /// The sum.
        needed: usize,
    },
    /// A loss, a gradient or what a step made of the adapter is no number.
    #[error(
        "step {step}: the {what} is {value}, so what gave it is not kept; {kept}. Lower --lr-prompt or --lr-lowrank and add --restart"
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// Loss, gradient or adapter.
        what: &'static str,
        /// The value.
        value: f64,
        /// What there is.
        kept: Kept,
    },
    /// A file can't be written.
    #[error("can't write '{}': {source}; what was there before is whole", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file can't be read.
    #[error("can't read '{}': {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The output folder holds another run.
    #[error(
        "'{}' holds a run with other settings: {differences}. Give another --out, or --restart to begin anew", out.display()
    )]
    OtherRun {
        /// The folder.
        out: PathBuf,
        /// What differs.
        differences: String,
    },
    /// The backbone failed.
    #[error("the model failed: {0}")]
    Backbone(#[from] candle_core::Error),
    /// A trained number is no number.
    #[error("the adapter is broken: {0}")]
    Matrix(#[from] MatrixError),
    /// The tensors do not make an adapter.
    #[error("the adapter is broken: {0}")]
    Weights(#[from] WeightsError),
    /// The card is refused.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The adapter can't be evaluated.
    #[error("the evaluation failed: {0}")]
    Judge(String),
}

/// What an output folder holds of a run that broke off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The folder.
    pub out: PathBuf,
    /// The step of the adapter that was written last; none where none was.
    pub step: Option<u64>,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let out = self.out.display();
        match self.step {
            Some(step) => write!(f, "'{out}' holds the adapter of step {step}"),
            None => write!(f, "no adapter has been written to '{out}' since this start"),
        }
    }
}
