//! Examples from JSONL: `{"source", "target"}`, or the fields of a template with a `target` (or `label`).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::order::Order;
use crate::adapter::{Card, template::Template};

/// Why a data file can't be used. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Not there, or not text.
    #[error("can't read '{}': {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No examples in it.
    #[error("'{}' holds no examples: write one JSON object a line, {{\"source\": …, \"target\": …}}", .0.display())]
    Empty(PathBuf),
    /// A line is no example.
    #[error("'{}' line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Fewer examples of a label than `--shots` asks for.
    #[error(
        "--shots {wanted}: there are only {found} examples of '{label}'; take fewer shots or give more data"
    )]
    Shots {
        /// Asked for.
        wanted: usize,
        /// At hand.
        found: usize,
        /// Of which label.
        label: String,
    },
}

/// One example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Its line in the file, from 1.
    pub line: usize,
    /// What the model reads.
    pub source: String,
    /// What it should answer: the first is trained on, any is right. Never empty.
    pub targets: Vec<String>,
}

impl Example {
    /// What it is trained to answer.
    pub fn target(&self) -> &str {
        &self.targets[0]
    }
}

/// How fields become a source, and which answers there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Form<'a> {
    /// For lines without a source.
    pub template: Option<&'a Template>,
    /// Answer to label; none where answers are free text.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Form<'a> {
    /// As a card says.
    pub fn of(card: &'a Card) -> Self {
        Self { template: card.template.as_ref(), labels: (!card.labels.is_empty()).then_some(&card.labels) }
    }
}

/// Reads all examples of a file; blank lines are passed over.
///
/// # Errors
/// Names the file, the line and what is wrong with it.
pub fn read_examples(path: &Path, form: Form<'_>) -> Result<Vec<Example>, DataError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let mut examples = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let problem = |problem| DataError::Line { path: path.to_owned(), line: at + 1, problem };
        examples.push(example(at + 1, line, form).map_err(problem)?);
    }
    if examples.is_empty() { Err(DataError::Empty(path.to_owned())) } else { Ok(examples) }
}

fn example(line: usize, text: &str, form: Form<'_>) -> Result<Example, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(mut fields) = value else { return Err("not a JSON object".to_owned()) };
    let target = fields.shift_remove("target").or_else(|| fields.shift_remove("label"));
    let targets = targets(target.ok_or("'target' is missing")?)?;
    let targets = targets.into_iter().map(|target| answer(target, form)).collect::<Result<Vec<_>, _>>()?;
    let inputs = fields.into_iter().map(|(name, value)| {
        let text = plain(&value).ok_or_else(|| format!("'{name}' is not a text or a number"))?;
        Ok((name, text))
    });
    let inputs = inputs.collect::<Result<BTreeMap<String, String>, String>>()?;
    let source = source(inputs, form)?;
    if source.trim().is_empty() {
        return Err("the source is empty".to_owned());
    }
    Ok(Example { line, source, targets })
}

fn source(mut inputs: BTreeMap<String, String>, form: Form<'_>) -> Result<String, String> {
    if let Some(source) = inputs.remove("source") {
        return match inputs.keys().next() {
            None => Ok(source),
            Some(name) => Err(format!("unknown '{name}' beside 'source' and 'target'")),
        };
    }
    match form.template {
        Some(template) => template.render(&inputs).map_err(|error| error.to_string()),
        None => {
            Err("'source' is missing; for the fields of a task name it with --task, or give a --card"
                .to_owned())
        }
    }
}

/// One answer or several.
fn targets(value: Value) -> Result<Vec<String>, String> {
    let wrong = || "'target' is not a text, a number or a list of them".to_owned();
    let listed = match value {
        Value::Array(values) => values.iter().map(plain).collect::<Option<Vec<_>>>().ok_or_else(wrong)?,
        value => vec![plain(&value).ok_or_else(wrong)?],
    };
    match listed.iter().all(|target| !target.trim().is_empty()) && !listed.is_empty() {
        true => Ok(listed),
        false => Err("'target' is empty".to_owned()),
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The answer that the card knows: the one given, or the one whose label it is.
fn answer(target: String, form: Form<'_>) -> Result<String, String> {
    let Some(labels) = form.labels else { return Ok(target) };
    if labels.contains_key(target.trim()) {
        return Ok(target.trim().to_owned());
    }
    let by_label = labels.iter().find(|(_, label)| label.as_str() == target.trim());
    by_label.map(|(answer, _)| answer.clone()).ok_or_else(|| {
        let known: Vec<_> = labels.iter().map(|(answer, label)| format!("'{answer}' ({label})")).collect();
        format!("target '{target}' is not on the card, whose labels are {}", known.join(", "))
    })
}

/// `shots` examples of every label (or of all, where answers are free text), drawn by `seed` and kept in order of lines.
///
/// # Errors
/// When there are fewer.
pub fn few_shot(
    examples: Vec<Example>,
    shots: usize,
    seed: u64,
    labelled: bool,
) -> Result<Vec<Example>, DataError> {
    let group =
        |example: &Example| if labelled { example.target().to_owned() } else { "any label".to_owned() };
    let labels: BTreeSet<String> = examples.iter().map(group).collect();
    let mut drawn = BTreeSet::new();
    for label in labels {
        let members: Vec<usize> = (0..examples.len()).filter(|&at| group(&examples[at]) == label).collect();
        if members.len() < shots {
            return Err(DataError::Shots { wanted: shots, found: members.len(), label });
        }
        let mut order = Order::new(members.len(), seed);
        drawn.extend((0..shots as u64).map(|place| members[order.at(place)]));
    }
    Ok(examples.into_iter().enumerate().filter(|(at, _)| drawn.contains(at)).map(|(_, one)| one).collect())
}
