//! Asks an adapter for its answers to examples: here, or on a server.

mod here;
mod there;

use anyhow::Context;

pub(super) use here::{Here, lease_of};
pub(super) use there::There;

use crate::{evaluation::Scored, training::Example};

/// The command that trained or measured, for a card: as it was typed, but for keys and the place of the program.
pub(super) fn command_line() -> String {
    without_keys(std::env::args().skip(1))
}

fn without_keys(args: impl Iterator<Item = String>) -> String {
    let mut shown = vec!["dept".to_owned()];
    let mut hide = false;
    for arg in args {
        let inline = arg.starts_with("--api-key=");
        if !hide && !inline && arg != "--api-key" {
            shown.push(quoted(&arg));
        }
        // What stands behind the flag is the key, whatever it looks like.
        hide = !hide && arg == "--api-key";
    }
    shown.join(" ")
}

/// A word of a command as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Prompts a request.
const BATCH: usize = 32;

/// How answers are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum By {
    /// Greedy text
    Generation,
    /// The likeliest of the card's labels; gives an AUC
    Likelihood,
}

/// Who answers.
pub(super) enum Answerer<'a> {
    Here(Here<'a>),
    There(&'a There),
}

/// What is asked beside the examples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub by: By,
    /// The answers to choose among.
    pub labels: &'a [String],
    /// Most tokens of a generated answer.
    pub max_tokens: u32,
}

impl Answerer<'_> {
    /// The answers to all examples, in their order. `tick` is told how many there are so far.
    pub async fn answers(
        &self,
        examples: &[Example],
        question: Question<'_>,
        mut tick: impl FnMut(usize),
    ) -> anyhow::Result<Vec<Scored>> {
        let mut scored = Vec::with_capacity(examples.len());
        for batch in examples.chunks(BATCH) {
            let prompts: Vec<String> = batch.iter().map(|example| example.source.clone()).collect();
            let lines = || format!("examples of lines {} to {}", batch[0].line, batch[batch.len() - 1].line);
            match question.by {
                By::Generation => {
                    let answers = self.generate(prompts, question.max_tokens).await.with_context(lines)?;
                    for (example, answer) in batch.iter().zip(answers) {
                        scored.push(Scored { targets: example.targets.clone(), answer, scores: Vec::new() });
                    }
                }
                By::Likelihood => {
                    let all = self.classify(prompts, question.labels).await.with_context(lines)?;
                    for (example, scores) in batch.iter().zip(all) {
                        let scores: Vec<_> = question.labels.iter().cloned().zip(scores).collect();
                        let best = scores.iter().max_by(|a, b| a.1.total_cmp(&b.1));
                        let answer = best.map(|(label, _)| label.clone()).unwrap_or_default();
                        scored.push(Scored { targets: example.targets.clone(), answer, scores });
                    }
                }
            }
            tick(scored.len());
        }
        Ok(scored)
    }

    async fn generate(&self, prompts: Vec<String>, max_tokens: u32) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Here(here) => here.generate(prompts, max_tokens).await,
            Self::There(there) => there.generate(prompts, max_tokens).await,
        }
    }

    async fn classify(&self, prompts: Vec<String>, labels: &[String]) -> anyhow::Result<Vec<Vec<f64>>> {
        match self {
            Self::Here(here) => here.classify(prompts, labels).await,
            Self::There(there) => there.classify(prompts, labels).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{quoted, without_keys};

    #[test]
    fn a_card_never_shows_a_key() {
        let shown = |line: &str| without_keys(line.split(' ').map(str::to_owned));
        assert_eq!(shown("eval --api-key secret --data d"), "dept eval --data d");
        assert_eq!(shown("eval --data d --api-key=secret"), "dept eval --data d");
        assert_eq!(shown("eval --api-key --api-key --json"), "dept eval --json");
    }

    #[test]
    fn a_shell_reads_the_command_as_it_was() {
        assert_eq!(quoted("target/a-1.jsonl"), "target/a-1.jsonl");
        assert_eq!(quoted("text:Is it so?"), "'text:Is it so?'");
        assert_eq!(quoted("text:Don't"), r"'text:Don'\''t'");
        assert_eq!(quoted(""), "''");
    }
}
