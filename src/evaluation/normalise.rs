//! Texts as SQuAD's official script compares them (Rajpurkar et al. 2016): lower case, no punctuation, no articles.

use std::collections::BTreeMap;

/// The words that count.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let plain: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let word = |word: &&str| !matches!(*word, "a" | "an" | "the");
    plain.split_whitespace().filter(word).map(str::to_owned).collect()
}

/// Whether both say the same.
pub(super) fn same(found: &str, expected: &str) -> bool {
    words(found) == words(expected)
}

/// The harmonic mean of precision and recall of the words.
pub(super) fn overlap(found: &str, expected: &str) -> f64 {
    let (found, expected) = (words(found), words(expected));
    if found.is_empty() || expected.is_empty() {
        return f64::from(u8::from(found == expected));
    }
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    expected.iter().for_each(|word| *left.entry(word).or_default() += 1);
    let common = found.iter().filter(|word| match left.get_mut(word.as_str()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    });
    let common = common.count() as f64;
    2.0 * common / (found.len() + expected.len()) as f64
}
