use std::path::Path;

use crate::{
    adapter::Card,
    training::{DataError, Example, Form, TaskTemplate, few_shot, read_examples},
};

fn read(text: &str, card: &Card) -> Result<Vec<Example>, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.jsonl");
    std::fs::write(&path, text).unwrap();
    read_examples(&path, Form::of(card))
}

/// What is wrong, with the line's number.
fn problem(text: &str, card: &Card) -> String {
    match read(text, card).unwrap_err() {
        DataError::Line { line, problem, .. } => format!("{line}: {problem}"),
        other => other.to_string(),
    }
}

#[test]
fn plain_pairs_and_fields_of_a_task() {
    let found = read(
        "{\"source\": \"a\", \"target\": 1}\n\n{\"target\": [\"x\", \"y\"], \"source\": \"b\"}\n",
        &Card::default(),
    );
    let expected = [
        Example { line: 1, source: "a".to_owned(), targets: vec!["1".to_owned()] },
        Example { line: 3, source: "b".to_owned(), targets: vec!["x".to_owned(), "y".to_owned()] },
    ];
    assert_eq!(found.unwrap(), expected);
    let rte = TaskTemplate::named("rte").unwrap().card();
    let line = "{\"sentence1\": \"A {b}\", \"sentence2\": \"C\", \"label\": \"not_entailment\"}";
    let found = read(line, &rte).unwrap();
    assert_eq!(found[0].source, "sentence1: A {b} sentence2: C");
    assert_eq!(found[0].target(), "1");
}

#[test]
fn broken_lines_are_named() {
    let (free, sst2) = (Card::default(), TaskTemplate::named("sst2").unwrap().card());
    let good = "{\"source\": \"a\", \"target\": \"b\"}\n";
    let cases = [
        ("{\"source\": \"a\", \"tar", "2: not JSON"),
        ("[1, 2]", "2: not a JSON object"),
        ("{\"source\": \"a\"}", "2: 'target' is missing"),
        ("{\"target\": \"a\"}", "2: 'source' is missing"),
        ("{\"source\": \" \", \"target\": \"b\"}", "2: the source is empty"),
        ("{\"source\": \"a\", \"target\": \"\"}", "2: 'target' is empty"),
        ("{\"source\": \"a\", \"target\": []}", "2: 'target' is empty"),
        ("{\"source\": \"a\", \"target\": {\"b\": 1}}", "2: 'target' is not a text"),
        ("{\"source\": [\"a\"], \"target\": \"b\"}", "2: 'source' is not a text"),
        ("{\"source\": \"a\", \"target\": \"b\", \"sorce\": \"c\"}", "2: unknown 'sorce'"),
    ];
    for (line, expected) in cases {
        let found = problem(&format!("{good}{line}\n"), &free);
        assert!(found.starts_with(expected), "expected {expected}, found {found}");
    }
    let found = problem("{\"sentence\": \"a\", \"target\": \"2\"}", &sst2);
    assert_eq!(found, "1: target '2' is not on the card, whose labels are '0' (negative), '1' (positive)");
    let found = problem("{\"sentense\": \"a\", \"target\": \"1\"}", &sst2);
    assert!(found.contains("missing field 'sentence'"), "{found}");
}

#[test]
fn empty_and_absent_files_say_what_to_do() {
    for text in ["", "\n \n"] {
        assert!(problem(text, &Card::default()).contains("holds no examples: write one JSON object a line"));
    }
    let error = read_examples(Path::new("/no/such/file"), Form::default()).unwrap_err();
    assert!(error.to_string().starts_with("can't read '/no/such/file'"));
}

#[test]
fn shots_are_of_every_label_and_of_one_seed() {
    let examples: Vec<Example> = (0..40)
        .map(|line| Example { line, source: "s".to_owned(), targets: vec![(line % 4 / 3).to_string()] })
        .collect();
    let drawn = |seed| few_shot(examples.clone(), 5, seed, true).unwrap();
    let of = |label: &str| drawn(1).iter().filter(|one| one.target() == label).count();
    assert_eq!((of("0"), of("1"), drawn(1).len()), (5, 5, 10));
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    let error = few_shot(examples.clone(), 11, 0, true).unwrap_err();
    assert!(error.to_string().contains("only 10 examples of '1'"));
    assert_eq!(few_shot(examples, 3, 0, false).unwrap().len(), 3);
}
