use std::{collections::BTreeMap, fmt};

use super::report::Scored;

/// Labels beyond which a table helps nobody.
const MOST_LABELS: usize = 40;

/// How often each target was answered with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// The labels, in order.
    pub labels: Vec<String>,
    /// `[target][answer]`; the last column is for answers that are no label.
    pub counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// The table; none where targets are free text.
    pub fn of(answers: &[Scored]) -> Option<Self> {
        let mut places: BTreeMap<&str, usize> = answers.iter().map(|one| (one.target(), 0)).collect();
        if places.len() < 2 || places.len() > MOST_LABELS || places.len() * 2 > answers.len().max(4) {
            return None;
        }
        places.values_mut().enumerate().for_each(|(at, place)| *place = at);
        let mut counts = vec![vec![0; places.len() + 1]; places.len()];
        for one in answers {
            let answer = places.get(one.said()).copied().unwrap_or(places.len());
            counts[places[one.target()]][answer] += 1;
        }
        Some(Self { labels: places.into_keys().map(str::to_owned).collect(), counts })
    }

    /// The names of the columns.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(String::as_str).chain(["(other)"])
    }
}

impl fmt::Display for Confusion {
    /// Rows are targets, columns answers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.columns().map(|name| name.chars().count()).max().unwrap_or(0).max(6);
        write!(f, "{:width$}", "")?;
        self.columns().try_for_each(|name| write!(f, "  {name:>width$}"))?;
        writeln!(f)?;
        for (label, counts) in self.labels.iter().zip(&self.counts) {
            write!(f, "{label:width$}")?;
            counts.iter().try_for_each(|count| write!(f, "  {count:>width$}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}
