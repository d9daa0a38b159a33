//! Texts that are held to a grammar, from the engine's side: ends, failures, neighbours.

use std::{path::Path, sync::Arc};

use super::rig::*;
use crate::{
    domain::{Choices, FinishReason, Grammar, GrammarStuck, Pattern, Schema, SequenceError, TenantId},
    engine::Submission,
    grammar::{Compiled, Grammars},
    runner::fake::FakeRunner,
    tokenizer::Tokenizer,
};

const TEXT: &str = "the film is no road";

fn compiled(grammar: &Grammar) -> Arc<Compiled> {
    let tokenizer = tokenizer();
    let size = tokenizer.vocab_size();
    let grammars = Grammars::new(tokenizer, size, vec![FakeRunner::EOS]);
    grammars.get(&TenantId::default_tenant(), grammar).unwrap()
}

fn choice(texts: &[&str]) -> Option<Arc<Compiled>> {
    let texts = texts.iter().map(|&text| text.to_owned()).collect();
    Some(compiled(&Grammar::Choice(Choices::new(texts).unwrap())))
}

fn regex(pattern: &str) -> Option<Arc<Compiled>> {
    Some(compiled(&Grammar::Regex(Pattern::new(pattern).unwrap())))
}

#[test]
fn a_text_that_is_whole_ends_at_once_with_stop() {
    let rig = Rig::start(Size::default());
    let expected = tokenizer().encode_bare(TEXT).unwrap();
    // The runner would go on for ever; and it would say the end token in a step of its own.
    let endless = Submission { grammar: choice(&[TEXT]), ..endless(FOREVER) };
    let echoed = Submission { grammar: choice(&[TEXT, "the road"]), ..echo_text(TEXT) };
    for submission in [endless, echoed] {
        let found = answer(rig.submit(submission));
        assert_eq!((found.text().as_str(), found.completion().reason), (TEXT, FinishReason::Stop));
        assert_eq!(found.completion().usage.completion_tokens, found.tokens.len());
    }
    let limit = u32::try_from(expected.len()).unwrap();
    let exact = Submission { grammar: choice(&[TEXT]), max_tokens: limit, ..echo_text(TEXT) };
    assert_eq!(answer(rig.submit(exact)).completion().reason, FinishReason::Stop, "whole at its limit");
    rig.join();
}

#[test]
fn the_end_comes_only_where_the_text_may_end() {
    let rig = Rig::start(Size::default());
    // The runner wants to end at once.
    let wants_to_end = || echo(&[FakeRunner::EOS]);
    let found = answer(rig.submit(Submission { grammar: regex("[ab]{2,5}"), ..wants_to_end() }));
    assert_eq!((found.text().chars().count(), found.completion().reason), (2, FinishReason::Stop));
    let found = answer(rig.submit(Submission { grammar: regex("(no)?"), ..wants_to_end() }));
    assert_eq!((found.text().as_str(), found.completion().reason), ("", FinishReason::Stop));
    rig.join();
}

#[test]
fn limits_and_stop_strings_cut_a_text_where_they_would_without_a_grammar() {
    let rig = Rig::start(Size::default());
    let found = answer(rig.submit(Submission { grammar: choice(&[TEXT]), max_tokens: 2, ..echo_text(TEXT) }));
    assert_eq!((found.tokens.len(), found.completion().reason), (2, FinishReason::Length));
    assert!(TEXT.starts_with(&found.text()));
    let stopping = Submission { grammar: choice(&[TEXT]), stop: vec!["no".to_owned()], ..echo_text(TEXT) };
    let found = answer(rig.submit(stopping));
    assert_eq!(
        (found.text().as_str(), found.completion().reason),
        ("the film is ", FinishReason::StopSequence)
    );
    // The stop string in the last word wins over the grammar's end.
    let stopping = Submission { grammar: choice(&[TEXT]), stop: vec!["road".to_owned()], ..echo_text(TEXT) };
    assert_eq!(answer(rig.submit(stopping)).completion().reason, FinishReason::StopSequence);
    rig.join();
}

#[test]
fn a_dead_end_fails_its_sequence_alone_and_says_why() {
    let rig = Rig::start(Size::default());
    // A string that must hold a character without a token: the schema's pattern is not looked into before.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/flan-t5-small-en/tokenizer.json");
    let embedded = Tokenizer::from_file(&path).unwrap();
    let size = embedded.id_bound();
    let schema = Grammar::JsonSchema(Schema::new(r#"{"type": "string", "pattern": "^a<b$"}"#).unwrap());
    let grammars = Grammars::new(embedded, size, vec![FakeRunner::EOS]);
    let grammar = Some(grammars.get(&TenantId::default_tenant(), &schema).unwrap());
    let beside = rig.submit(Submission { max_tokens: 20, ..endless(20) });
    let found = answer(rig.submit(Submission { grammar, ..echo_text(TEXT) }));
    assert_eq!(found.end, Err(SequenceError::Grammar(GrammarStuck::NoToken)));
    assert!(!found.tokens.is_empty());
    assert_eq!(answer(beside).completion().reason, FinishReason::Length);
    rig.join();
}

#[test]
fn sequences_of_one_grammar_go_their_own_ways_and_leave_when_their_clients_do() {
    let rig = Rig::start(Size::default());
    let grammar = choice(&[TEXT, "the film", "road road road"]);
    let submit = |text: &str| rig.submit(Submission { grammar: grammar.clone(), ..echo_text(text) });
    let (one, other, gone) = (submit(TEXT), submit("the film"), submit("road road road"));
    drop(gone);
    assert_eq!(answer(one).text(), TEXT);
    assert_eq!(answer(other).text(), "the film");
    rig.join();
}
