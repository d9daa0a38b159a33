use std::{collections::BTreeMap, fmt};

use super::{
    bootstrap::interval_95,
    confusion::Confusion,
    metric::{Metric, auc},
};
use crate::adapter::card::Measurement;

/// What was answered to one example.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The right answers. Never empty; the first is the label.
    pub targets: Vec<String>,
    /// What was said.
    pub answer: String,
    /// Each label's log-likelihood, where labels were scored.
    pub scores: Vec<(String, f64)>,
}

impl Scored {
    /// The label.
    pub fn target(&self) -> &str {
        self.targets[0].trim()
    }

    /// The answer without white space around it.
    pub fn said(&self) -> &str {
        self.answer.trim()
    }

    /// Whether it is one of the targets.
    pub fn is_right(&self) -> bool {
        self.targets.iter().any(|target| target.trim() == self.said())
    }
}

/// A measured adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What was measured.
    pub metric: Metric,
    /// Its value.
    pub value: f64,
    /// Its bootstrap bounds, 95 %.
    pub interval: [f64; 2],
    /// Examples.
    pub n: usize,
    /// The metric of always saying the most frequent label, and which that is; where there are labels.
    pub majority: Option<(String, f64)>,
    /// Area under the ROC curve, where labels were scored; the mean of all labels' where there are more than two.
    pub auc: Option<f64>,
    /// Targets by answers; where there are labels.
    pub confusion: Option<Confusion>,
}

impl Report {
    /// Measures.
    pub fn of(metric: Metric, answers: &[Scored]) -> Self {
        let all: Vec<&Scored> = answers.iter().collect();
        let confusion = Confusion::of(answers);
        Self {
            metric,
            value: metric.of(&all),
            interval: interval_95(metric, answers),
            n: answers.len(),
            majority: confusion.as_ref().and_then(|_| majority(metric, answers)),
            auc: area(answers),
            confusion,
        }
    }

    /// For a card.
    pub fn measurement(&self, dataset: String, command: Option<String>) -> Measurement {
        Measurement {
            dataset,
            split: None,
            metric: self.metric.as_str().to_owned(),
            value: round(self.value),
            interval_95: Some(self.interval.map(round)),
            n: self.n as u64,
            auc: self.auc.map(round),
            majority: self.majority.as_ref().map(|(_, value)| round(*value)),
            zero_shot: None,
            zero_shot_auc: None,
            command,
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// The metric of one answer to everything.
fn majority(metric: Metric, answers: &[Scored]) -> Option<(String, f64)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    answers.iter().for_each(|one| *counts.entry(one.target()).or_default() += 1);
    let (label, _) = counts.into_iter().max_by_key(|&(_, count)| count)?;
    let same = |one: &Scored| Scored { answer: label.to_owned(), ..one.clone() };
    let answers: Vec<Scored> = answers.iter().map(same).collect();
    Some((label.to_owned(), metric.of(&answers.iter().collect::<Vec<_>>())))
}

/// The area under the ROC curve of each label's lead over the best other one; their mean. Of two labels both are the same.
fn area(answers: &[Scored]) -> Option<f64> {
    let labels = answers.first()?.scores.len();
    let of = |at: usize| {
        let leads = answers.iter().map(|one| lead(one, at));
        auc(&leads.collect::<Option<Vec<_>>>()?)
    };
    // A label that nothing is, or all is, has none.
    let areas: Vec<f64> = (0..labels).filter_map(of).collect();
    (labels > 1 && !areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
}

/// How far a label is ahead of the best other one, and whether it is the target.
fn lead(one: &Scored, at: usize) -> Option<(f64, bool)> {
    let (label, score) = one.scores.get(at)?;
    let others = one.scores.iter().enumerate().filter(|&(other, _)| other != at);
    let best = others.map(|(_, (_, score))| *score).fold(f64::NEG_INFINITY, f64::max);
    Some((score - best, one.target() == label))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.interval;
        let name = self.metric.as_str();
        writeln!(f, "{name:<12} {:.4}   95 % {low:.4} to {high:.4}   n {}", self.value, self.n)?;
        if let Some((label, value)) = &self.majority {
            writeln!(f, "{:<12} {value:.4}   always '{label}'", "majority")?;
        }
        if let Some(auc) = self.auc {
            writeln!(f, "{:<12} {auc:.4}", "auc")?;
        }
        match &self.confusion {
            Some(confusion) => write!(f, "\nrows are targets, columns answers\n{confusion}"),
            None => Ok(()),
        }
    }
}
