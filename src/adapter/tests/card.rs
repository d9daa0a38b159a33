use std::collections::BTreeMap;

use super::{
    super::{
        Card,
        template::{Template, TemplateError},
    },
    support::says,
};
use crate::domain::OverLength;

const FULL: &str = r#"
description = "Answers yes-no questions"
template = "question: {question} passage: {passage}"
labels = { "0" = "false", "1" = "true" }
max_tokens = 4
over_length = "right"
license = "Apache-2.0"
[base]
name = "flan-t5-small"
fingerprint = "sha256:00"
[training]
command = "dept train"
steps = 40
minutes = 1.5
date = "2026-11-24"
[[results]]
dataset = "boolq"
split = "test"
metric = "accuracy"
value = 0.66
n = 1000
auc = 0.7
majority = 0.63
zero_shot = 0.64
command = "dept eval"
"#;

fn inputs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_full_card_reads_as_written() {
    let card = Card::parse(FULL.as_bytes()).unwrap();
    assert_eq!((card.max_tokens, card.over_length), (Some(4), Some(OverLength::Right)));
    assert_eq!((card.label("1"), card.label(" 0\n"), card.label("2")), (Some("true"), Some("false"), None));
    assert_eq!(card.base_fingerprint(), Some("sha256:00"));
    let training = card.training.as_ref().unwrap();
    assert_eq!((training.steps, training.minutes), (Some(40), Some(1.5)));
    let result = &card.results[0];
    assert_eq!(
        (result.dataset.as_str(), result.value, result.n, result.auc),
        ("boolq", 0.66, 1000, Some(0.7))
    );
    let prompt = card.render(&inputs([("question", "is {it}?"), ("passage", "so")])).unwrap().unwrap();
    assert_eq!(prompt, "question: is {it}? passage: so");
    assert_eq!(Card::parse(b"").unwrap(), Card::default());
    assert!(Card::default().render(&BTreeMap::new()).is_none());
}

#[test]
fn a_card_is_itself_again_through_json() {
    let card = Card::parse(FULL.as_bytes()).unwrap();
    let json = serde_json::to_string(&card).unwrap();
    assert_eq!(serde_json::from_str::<Card>(&json).unwrap(), card);
    assert_eq!(serde_json::to_string(&Card::default()).unwrap(), "{}");
}

#[test]
fn bad_cards_are_refused_by_key() {
    let cases = [
        ("colour = 1", "unknown field `colour`"),
        ("[base]\nwidth = 1", "unknown field `width`"),
        ("[training]\nepochs = 1", "unknown field `epochs`"),
        ("[training]\nminutes = nan", "'training.minutes'"),
        ("[[results]]\nscore = 1", "unknown field `score`"),
        ("[[results]]\ndataset = 'x'\nmetric = 'y'\nn = 1", "missing field `value`"),
        ("[[results]]\ndataset = 'x'\nmetric = 'y'\nn = 1\nvalue = nan", "'results[0].value'"),
        ("[[results]]\ndataset = 'x'\nmetric = 'y'\nn = 1\nvalue = 1\nauc = -inf", "found -inf"),
        ("[[results]]\ndataset = 'x'\nmetric = 'y'\nn = -1\nvalue = 1", "-1"),
        ("max_tokens = 0", "'max_tokens'"),
        ("max_tokens = -3", "-3"),
        ("max_tokens = '3'", "max_tokens"),
        ("over_length = 'middle'", "unknown variant `middle`"),
        ("labels = { ' 1' = 'x' }", "white space"),
        ("base = { fingerprint = '' }", "'base.fingerprint'"),
        ("template = 'no field'", "template: the template has no field"),
        ("template = '{a'", "lone '{' at byte 0"),
        ("max_tokens = 1\nmax_tokens = 2", "duplicate key"),
        ("= 1", "card.toml"),
    ];
    for (text, part) in cases {
        says(Card::parse(text.as_bytes()), &["card.toml", part]);
    }
    says(Card::parse(&[0xff]), &["not UTF-8"]);
    says(Card::parse(&vec![b'#'; 300_000]), &["300000 bytes"]);
    assert!(Card::parse(format!("x = {}", "[".repeat(100_000)).as_bytes()).is_err());
}

#[test]
fn templates_keep_doubled_braces() {
    let template = Template::parse("{{\"a\": {a}}} {b_2}{a}").unwrap();
    assert_eq!(template.fields().collect::<Vec<_>>(), ["a", "b_2"]);
    assert_eq!(template.render(&inputs([("a", "1"), ("b_2", "2")])).unwrap(), "{\"a\": 1} 21");
    assert_eq!(template.to_string(), "{{\"a\": {a}}} {b_2}{a}");
}

#[test]
fn bad_templates_say_where() {
    assert_eq!(Template::parse("a } b"), Err(TemplateError::LoneBrace { brace: '}', at: 2 }));
    assert_eq!(Template::parse("ü{x} {"), Err(TemplateError::LoneBrace { brace: '{', at: 6 }));
    assert_eq!(Template::parse("{}"), Err(TemplateError::FieldName { name: String::new(), at: 0 }));
    for name in ["a b", "1a", "a.b", "a{b", " a", "ü"] {
        let found = Template::parse(&format!("{{{name}}}"));
        assert_eq!(found, Err(TemplateError::FieldName { name: name.into(), at: 0 }), "{name}");
    }
    assert_eq!(Template::parse("{{}}"), Err(TemplateError::NoField));
    assert_eq!(Template::parse(&"x".repeat(70_000)), Err(TemplateError::TooLong(70_000)));
}

#[test]
fn missing_and_unknown_inputs_are_named() {
    let template = Template::parse("{a} {b}").unwrap();
    let message =
        says(template.render(&inputs([("b", "")])), &["missing field 'a'", "needs fields 'a', 'b'"]);
    assert!(!message.contains("unknown"));
    says(template.render(&inputs([])), &["missing fields 'a', 'b'"]);
    says(
        template.render(&inputs([("a", ""), ("b", ""), ("c", "")])),
        &["unknown field 'c'", "only fields 'a', 'b'"],
    );
}
