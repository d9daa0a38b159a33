//! What happened at which step, as JSONL and as CSV, a line as it happens.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{error::TrainError, files::write_whole};

/// A step, or an evaluation behind it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Entry {
    /// The step, from 1.
    pub step: u64,
    /// Mean loss a target token, before the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The learning rate of P.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_prompt: Option<f64>,
    /// The learning rate of A and B.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_lowrank: Option<f64>,
    /// Length of the gradient before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Source and target tokens of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Seconds that the step took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// What was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Whether it is the best so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<bool>,
}

const HEADER: &str = "step,loss,lr_prompt,lr_lowrank,gradient_norm,tokens,seconds,metric,value,best\n";

impl Entry {
    fn csv(&self) -> String {
        let text = |value: &Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let tokens = self.tokens.map_or(String::new(), |tokens| tokens.to_string());
        let best = self.best.map_or("", |best| if best { "true" } else { "false" });
        let fields = [
            self.step.to_string(),
            text(&self.loss),
            text(&self.lr_prompt),
            text(&self.lr_lowrank),
            text(&self.gradient_norm),
            tokens,
            text(&self.seconds),
            self.metric.clone().unwrap_or_default(),
            text(&self.value),
            best.to_owned(),
        ];
        fields.join(",") + "\n"
    }
}

/// The entries of a journal; lines that a killed run left unfinished are passed over.
///
/// # Errors
/// When it can't be read.
pub fn read_journal(path: &Path) -> std::io::Result<Vec<Entry>> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// An open pair of files.
#[derive(Debug)]
pub struct Journal {
    jsonl: (PathBuf, File),
    csv: (PathBuf, File),
}

impl Journal {
    /// Opens the journal in `folder` behind step `step`: what a killed run wrote of later steps is taken away.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let (jsonl, csv) = (folder.join("log.jsonl"), folder.join("log.csv"));
        let mut kept = read_journal(&jsonl).unwrap_or_default();
        kept.retain(|entry| entry.step <= step);
        write_whole(&jsonl, kept.iter().map(line).collect::<String>().as_bytes())?;
        let rows: String = kept.iter().map(Entry::csv).collect();
        write_whole(&csv, (HEADER.to_owned() + &rows).as_bytes())?;
        Ok(Self { jsonl: append(jsonl)?, csv: append(csv)? })
    }

    /// Writes an entry to both.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write(&mut self, entry: &Entry) -> Result<(), TrainError> {
        for ((path, file), text) in [(&mut self.jsonl, line(entry)), (&mut self.csv, entry.csv())] {
            file.write_all(text.as_bytes())
                .map_err(|source| TrainError::Write { path: path.clone(), source })?;
        }
        Ok(())
    }
}

fn line(entry: &Entry) -> String {
    serde_json::to_string(entry).unwrap_or_default() + "\n"
}

fn append(path: PathBuf) -> Result<(PathBuf, File), TrainError> {
    match OpenOptions::new().append(true).open(&path) {
        Ok(file) => Ok((path, file)),
        Err(source) => Err(TrainError::Write { path, source }),
    }
}
