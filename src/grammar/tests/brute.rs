//! Masks against what enumerating a small language says.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::grammar::vocabulary::Alphabet;

/// A regular expression over a few letters with a finite language.
#[derive(Debug, Clone)]
enum Rx {
    Letter(char),
    Class(Vec<char>),
    Both(Box<Rx>, Box<Rx>),
    Either(Box<Rx>, Box<Rx>),
    UpTo(Box<Rx>, u32),
}

/// Letters of the languages: a space too, which the beginning of a text may lose, and one of two bytes.
const LETTERS: [char; 4] = ['a', 'b', ' ', 'é'];

impl Rx {
    fn pattern(&self) -> String {
        match self {
            Self::Letter(c) => c.to_string(),
            Self::Class(letters) => format!("[{}]", letters.iter().collect::<String>()),
            Self::Both(a, b) => format!("(?:{})(?:{})", a.pattern(), b.pattern()),
            Self::Either(a, b) => format!("(?:{}|{})", a.pattern(), b.pattern()),
            Self::UpTo(a, n) => format!("(?:{}){{0,{n}}}", a.pattern()),
        }
    }

    fn language(&self) -> BTreeSet<String> {
        let product = |a: &BTreeSet<String>, b: &BTreeSet<String>| {
            a.iter().flat_map(|x| b.iter().map(move |y| format!("{x}{y}"))).collect::<BTreeSet<_>>()
        };
        match self {
            Self::Letter(c) => BTreeSet::from([c.to_string()]),
            Self::Class(letters) => letters.iter().map(char::to_string).collect(),
            Self::Both(a, b) => product(&a.language(), &b.language()),
            Self::Either(a, b) => a.language().union(&b.language()).cloned().collect(),
            Self::UpTo(a, n) => {
                let (once, mut all) = (a.language(), BTreeSet::from([String::new()]));
                for _ in 0..*n {
                    all.extend(product(&all, &once));
                }
                all
            }
        }
    }
}

fn expressions() -> impl Strategy<Value = Rx> {
    let letter = prop::sample::select(LETTERS.to_vec());
    let leaf = prop_oneof![
        letter.clone().prop_map(Rx::Letter),
        prop::collection::vec(letter, 1..3).prop_map(Rx::Class),
    ];
    leaf.prop_recursive(4, 10, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone().prop_map(|(a, b)| Rx::Both(Box::new(a), Box::new(b))),
            pair.prop_map(|(a, b)| Rx::Either(Box::new(a), Box::new(b))),
            (inner, 1..3_u32).prop_map(|(a, n)| Rx::UpTo(Box::new(a), n)),
        ]
    })
}

/// Words of one to three letters.
fn words() -> impl Strategy<Value = Vec<String>> {
    let letter = prop::sample::select(LETTERS.to_vec());
    let word =
        prop::collection::vec(letter, 1..4).prop_map(|letters| letters.into_iter().collect::<String>());
    prop::collection::btree_set(word, 2..14).prop_map(|words| words.into_iter().collect())
}

fn beginnings() -> impl Strategy<Value = Beginning> {
    prop::sample::select(vec![Beginning::AsIs, Beginning::LosesOne, Beginning::LosesAllOfFirst])
}

/// What decoding makes of words.
fn decoded(words: &[&str], beginning: Beginning) -> String {
    let text = words.concat();
    match (beginning, words.first()) {
        (Beginning::LosesOne, _) => text.strip_prefix(' ').unwrap_or(&text).to_owned(),
        (Beginning::LosesAllOfFirst, Some(first)) => first.replace(' ', "") + &words[1..].concat(),
        _ => text,
    }
}

/// Whether the first word may be this one: it loses all of its spaces or none, where only one can be told from another.
fn may_begin(word: &str, beginning: Beginning) -> bool {
    beginning != Beginning::LosesAllOfFirst || word.matches(' ').count() <= usize::from(word.starts_with(' '))
}

/// What of `language` the vocabulary can write.
fn writable(language: BTreeSet<String>, alphabet: &Alphabet) -> BTreeSet<String> {
    language.into_iter().filter(|text| alphabet.missing(text).is_empty()).collect()
}

/// Follows random tokens through the grammar and holds each mask to the language. Returns whether there was any.
fn masks_are_what_the_language_says(
    grammar: &Grammar,
    language: BTreeSet<String>,
    words: &[String],
    beginning: Beginning,
    seed: u64,
) -> bool {
    let listed: Vec<&str> = words.iter().map(String::as_str).collect();
    let vocabulary = vocabulary(&listed, beginning);
    let language = writable(language, &vocabulary.alphabet);
    let begins = |written: &[&str]| {
        let text = decoded(written, beginning);
        language.iter().any(|whole| whole.starts_with(&text))
    };
    let next = |written: &[&str]| -> Vec<u32> {
        let fits = |&id: &u32| {
            let word = listed[id as usize - 1];
            let legal = !written.is_empty() || may_begin(word, beginning);
            legal && begins(&[written, &[word]].concat())
        };
        let ends = language.contains(&decoded(written, beginning)).then_some(END);
        ends.into_iter().chain((1..=listed.len() as u32).filter(fits)).collect()
    };
    let compiled = match compile(grammar, &vocabulary) {
        Ok(compiled) => compiled,
        Err(error) => {
            assert_eq!(next(&[]), Vec::<u32>::new(), "{grammar:?}: {error}");
            assert!(matches!(error, CompileError::Unwritable { .. }), "{grammar:?}: {error}");
            return false;
        }
    };
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..4 {
        let (mut guide, mut written) = (Guide::new(Arc::clone(&compiled)), Vec::new());
        loop {
            let expected = next(&written);
            assert_eq!(
                allowed(guide.mask().unwrap(), listed.len() + 1),
                expected,
                "{grammar:?} behind {written:?}"
            );
            let more: Vec<u32> = expected.iter().copied().filter(|&id| id != END).collect();
            assert_eq!(guide.has_more(), !more.is_empty());
            if more.is_empty() {
                break;
            }
            let token = more[random.random_range(0..more.len())];
            written.push(listed[token as usize - 1]);
            if guide.advance(token).unwrap() == Progress::Whole {
                assert_eq!(next(&written), [END], "{grammar:?} behind {written:?}");
                break;
            }
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_regex_allows_what_its_language_allows(
        rx in expressions(), mut words in words(), beginning in beginnings(), closed: bool, seed: u64,
    ) {
        prop_assume!(rx.language().len() < 3000);
        if closed {
            words.extend(LETTERS.map(String::from));
            words.sort();
            words.dedup();
        }
        masks_are_what_the_language_says(&regex(&rx.pattern()), rx.language(), &words, beginning, seed);
    }

    #[test]
    fn a_choice_allows_what_leads_to_one_of_its_texts(
        texts in words(), mut words in words(), beginning in beginnings(), seed: u64,
    ) {
        words.extend(LETTERS.map(String::from));
        words.sort();
        words.dedup();
        let listed: Vec<&str> = texts.iter().map(String::as_str).collect();
        prop_assert!(masks_are_what_the_language_says(&choice(&listed), texts.iter().cloned().collect(), &words, beginning, seed));
    }
}
