//! The task templates that DePT was released with (Shi and Lipani 2024), as one table. Own tasks are a card away.

use std::collections::BTreeMap;

use crate::adapter::{Card, template::Template};

/// How a known task asks, and what its answers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskTemplate {
    /// What `--task` calls it.
    pub name: &'static str,
    /// From the fields of an example to what the model reads.
    pub template: &'static str,
    /// What the model answers, and what that means; empty where answers are free text.
    pub labels: &'static [(&'static str, &'static str)],
    /// The metric that is usual for it.
    pub metric: &'static str,
}

const fn task(
    name: &'static str,
    template: &'static str,
    labels: &'static [(&'static str, &'static str)],
    metric: &'static str,
) -> TaskTemplate {
    TaskTemplate { name, template, labels, metric }
}

const PAIR: &str = "sentence1: {sentence1} sentence2: {sentence2}";
const NLI: &str = "premise: {premise} hypothesis: {hypothesis}";
const READING: &str = "question: {question} context: {context}";
const ENTAILMENT: &[(&str, &str)] = &[("0", "entailment"), ("1", "not_entailment")];

/// Every task that `--task` knows.
pub const TASKS: &[TaskTemplate] = &[
    task("sst2", "sentence: {sentence}", &[("0", "negative"), ("1", "positive")], "accuracy"),
    task("cola", "sentence: {sentence}", &[("0", "unacceptable"), ("1", "acceptable")], "mcc"),
    task("mrpc", PAIR, &[("0", "not_equivalent"), ("1", "equivalent")], "f1"),
    task("rte", PAIR, ENTAILMENT, "accuracy"),
    task("qnli", "question: {question} sentence: {sentence}", ENTAILMENT, "accuracy"),
    task("mnli", NLI, &[("0", "entailment"), ("1", "neutral"), ("2", "contradiction")], "accuracy"),
    task("cb", NLI, &[("0", "entailment"), ("1", "contradiction"), ("2", "neutral")], "accuracy"),
    task(
        "qqp",
        "question1: {question1} question2: {question2}",
        &[("0", "not_duplicate"), ("1", "duplicate")],
        "f1",
    ),
    task("boolq", "question: {question} passage: {passage}", &[("0", "false"), ("1", "true")], "accuracy"),
    task(
        "wic",
        "sentence1: {sentence1} sentence2: {sentence2} word: {word}",
        &[("0", "false"), ("1", "true")],
        "accuracy",
    ),
    task("stsb", PAIR, &[], "pearson"),
    task("squad", READING, &[], "squad-f1"),
    task("mrqa", READING, &[], "squad-f1"),
];

impl TaskTemplate {
    /// The task of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TASKS.iter().find(|task| task.name == name)
    }

    /// A card with its template and labels.
    pub fn card(&self) -> Card {
        let labels = self.labels.iter().map(|&(text, label)| (text.to_owned(), label.to_owned()));
        Card {
            template: Some(Template::parse(self.template).expect("the table's templates are sound")),
            labels: labels.collect::<BTreeMap<_, _>>(),
            ..Card::default()
        }
    }
}
