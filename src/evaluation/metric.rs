use std::collections::BTreeSet;

use super::{normalise, report::Scored};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Metric {
    /// Share of answers that are the target, white space around them aside.
    Accuracy,
    /// F1 of the second label in alphabetical order (0 and 1: of 1); with more than two labels, the mean of all labels' F1.
    F1,
    /// Matthews' correlation coefficient, of any number of labels.
    Mcc,
    /// Pearson's correlation of numbers; an answer that is no number counts as 0.
    Pearson,
    /// Spearman's rank correlation of numbers; an answer that is no number counts as 0.
    Spearman,
    /// Share of answers that equal one of the targets but for case, punctuation and articles.
    ExactMatch,
    /// Mean word overlap (F1) with the closest target, as SQuAD's script has it.
    SquadF1,
}

impl Metric {
    /// Its name on cards and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Mcc => "mcc",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
            Self::ExactMatch => "exact-match",
            Self::SquadF1 => "squad-f1",
        }
    }

    /// The metric of that name.
    pub fn named(name: &str) -> Option<Self> {
        <Self as clap::ValueEnum>::from_str(name, false).ok()
    }

    /// Its value over `answers`; 0 of none.
    pub fn of(self, answers: &[&Scored]) -> f64 {
        match self {
            Self::Accuracy => mean(answers, |one| f64::from(u8::from(one.is_right()))),
            Self::ExactMatch => mean(answers, |one| {
                f64::from(u8::from(one.targets.iter().any(|target| normalise::same(&one.answer, target))))
            }),
            Self::SquadF1 => mean(answers, |one| {
                one.targets.iter().map(|target| normalise::overlap(&one.answer, target)).fold(0.0, f64::max)
            }),
            Self::F1 => f1(answers),
            Self::Mcc => mcc(answers),
            Self::Pearson => pearson(&numbers(answers)),
            Self::Spearman => {
                let (found, expected): (Vec<_>, Vec<_>) = numbers(answers).into_iter().unzip();
                let pairs: Vec<_> = ranks(&found).into_iter().zip(ranks(&expected)).collect();
                pearson(&pairs)
            }
        }
    }
}

fn mean(answers: &[&Scored], value: impl Fn(&Scored) -> f64) -> f64 {
    if answers.is_empty() {
        0.0
    } else {
        answers.iter().map(|one| value(one)).sum::<f64>() / answers.len() as f64
    }
}

fn labels<'a>(answers: &[&'a Scored]) -> Vec<&'a str> {
    answers.iter().map(|one| one.target()).collect::<BTreeSet<_>>().into_iter().collect()
}

fn f1(answers: &[&Scored]) -> f64 {
    let of = |label: &str| {
        let count = |right: &dyn Fn(&Scored) -> bool| answers.iter().filter(|one| right(one)).count() as f64;
        let hits = count(&|one| one.target() == label && one.said() == label);
        let all = count(&|one| one.target() == label) + count(&|one| one.said() == label);
        if all == 0.0 { 0.0 } else { 2.0 * hits / all }
    };
    match labels(answers)[..] {
        [] => 0.0,
        [only] => of(only),
        [_, positive] => of(positive),
        ref many => many.iter().map(|label| of(label)).sum::<f64>() / many.len() as f64,
    }
}

/// Gorodkin's form for any number of classes; answers that are no label are a class of their own.
fn mcc(answers: &[&Scored]) -> f64 {
    let mut classes: BTreeSet<&str> = labels(answers).into_iter().collect();
    classes.extend(answers.iter().map(|one| one.said()));
    let n = answers.len() as f64;
    let right = answers.iter().filter(|one| one.said() == one.target()).count() as f64;
    let (mut both, mut said, mut meant) = (0.0, 0.0, 0.0);
    for class in classes {
        let s = answers.iter().filter(|one| one.said() == class).count() as f64;
        let t = answers.iter().filter(|one| one.target() == class).count() as f64;
        both += s * t;
        said += s * s;
        meant += t * t;
    }
    let under = ((n * n - said) * (n * n - meant)).sqrt();
    if under == 0.0 { 0.0 } else { (right * n - both) / under }
}

/// (answer, target) as numbers.
fn numbers(answers: &[&Scored]) -> Vec<(f64, f64)> {
    let number =
        |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite()).unwrap_or(0.0);
    answers.iter().map(|one| (number(&one.answer), number(one.target()))).collect()
}

fn pearson(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len().max(1) as f64;
    let mean_x = pairs.iter().map(|pair| pair.0).sum::<f64>() / n;
    let mean_y = pairs.iter().map(|pair| pair.1).sum::<f64>() / n;
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        xy += (x - mean_x) * (y - mean_y);
        xx += (x - mean_x).powi(2);
        yy += (y - mean_y).powi(2);
    }
    let under = (xx * yy).sqrt();
    if under == 0.0 { 0.0 } else { xy / under }
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let equal = order[start..].iter().take_while(|&&at| values[at] == values[order[start]]).count();
        let shared = start as f64 + (equal as f64 + 1.0) / 2.0;
        order[start..start + equal].iter().for_each(|&at| ranks[at] = shared);
        start += equal;
    }
    ranks
}

/// The area under the ROC curve: the chance that a positive example scores above a negative one, half for equal scores.
/// `None` unless there are both.
pub fn auc(scored: &[(f64, bool)]) -> Option<f64> {
    let positives = scored.iter().filter(|one| one.1).count();
    let negatives = scored.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let ranks = ranks(&scored.iter().map(|one| one.0).collect::<Vec<_>>());
    let sum: f64 = ranks.iter().zip(scored).filter(|(_, one)| one.1).map(|(rank, _)| rank).sum();
    let least = (positives * (positives + 1)) as f64 / 2.0;
    Some((sum - least) / (positives * negatives) as f64)
}
