use std::time::UNIX_EPOCH;

use super::{
    super::vocabulary::{chat_template, from_metadata},
    *,
};
use crate::{
    domain::{ChatMessage, Role},
    tokenizer::{ChatTemplateError, Tokenizer, TokenizerError},
};

fn pairs() -> Vec<(&'static str, Value)> {
    let tokens = ["<pad>", "</s>", "<unk>", "▁the", "▁cat", "s", "▁", "[PAD7]"].map(str::to_owned).to_vec();
    vec![
        ("model", Value::Text("t5".into())),
        ("tokens", Value::Texts(tokens)),
        ("scores", Value::Floats(vec![0.0, 0.0, 0.0, -1.0, -1.5, -2.0, -3.0, -10000.0])),
        ("token_type", Value::Ints(vec![3, 3, 2, 1, 1, 1, 1, 5])),
        ("eos_token_id", Value::Int(1)),
        ("unknown_token_id", Value::Int(2)),
        ("precompiled_charsmap", Value::Bytes(Vec::new())),
    ]
}

fn build(pairs: Vec<(&'static str, Value)>) -> Result<Tokenizer, TokenizerError> {
    let named = pairs.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value));
    from_metadata(&named.collect())
}

fn with(key: &'static str, value: Value) -> Result<Tokenizer, TokenizerError> {
    build(pairs().into_iter().filter(|(k, _)| *k != key).chain([(key, value)]).collect())
}

#[test]
fn a_t5_vocabulary_serves() {
    let tokenizer = build(pairs()).unwrap();
    assert_eq!(tokenizer.encode("the  cats\n").unwrap(), [3, 4, 5, 1]);
    assert_eq!(tokenizer.encode("the</s>").unwrap(), [3, 1, 1]);
    assert_eq!(tokenizer.encode("").unwrap(), [1]);
    assert_eq!(tokenizer.decode(&[3, 4, 5, 1]), "the cats");
    assert_eq!(tokenizer.vocab_size(), 8);
    let open = with("add_eos_token", Value::Bool(false)).unwrap();
    assert_eq!(open.encode("the").unwrap(), [3]);
}

#[test]
fn a_vocabulary_that_lies_is_refused() {
    for (key, value) in [
        ("model", Value::Text("bert".into())),
        ("model", Value::Text("gpt2".into())),
        ("tokens", Value::Texts(Vec::new())),
        ("tokens", Value::Int(3)),
        ("scores", Value::Floats(vec![0.0])),
        ("scores", Value::Ints(vec![0; 8])),
        ("scores", Value::Floats(vec![f64::NAN; 8])),
        ("eos_token_id", Value::Int(8)),
        ("unknown_token_id", Value::Int(1 << 70)),
        ("precompiled_charsmap", Value::Bytes(vec![1, 2])),
        // A table of one entry that points out of itself.
        ("precompiled_charsmap", Value::Bytes(vec![4, 0, 0, 0, 0, 255, 255, 255])),
    ] {
        let case = format!("{key} = {value:?}");
        let outcome = with(key, value);
        assert!(matches!(outcome, Err(TokenizerError::Vocabulary(_))), "{case}");
    }
}

/// A byte-level vocabulary: three bytes, a merge, a control token, an unused row.
fn byte_pairs() -> Vec<(&'static str, Value)> {
    let tokens = ["a", "b", "Ġ", "ab", "<|end|>", "[PAD5]", "<user>"].map(str::to_owned).to_vec();
    vec![
        ("model", Value::Text("gpt2".into())),
        ("pre", Value::Text("gpt-2".into())),
        ("tokens", Value::Texts(tokens)),
        ("token_type", Value::Ints(vec![1, 1, 1, 1, 3, 5, 4])),
        ("merges", Value::Texts(vec!["a b".into()])),
        ("eos_token_id", Value::Int(4)),
        ("bos_token_id", Value::Int(4)),
    ]
}

/// A sentencepiece vocabulary: the order of merges is that of the scores.
fn scored_pairs() -> Vec<(&'static str, Value)> {
    let tokens = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "c", "ab", "bc", "▁a"];
    vec![
        ("model", Value::Text("llama".into())),
        ("tokens", Value::Texts(tokens.map(str::to_owned).to_vec())),
        ("scores", Value::Floats(vec![0., 0., 0., 0., 0., -9., -9., -9., -9., -2., -1., -3.])),
        ("token_type", Value::Ints(vec![2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1])),
        ("add_space_prefix", Value::Bool(false)),
    ]
}

fn changed(
    pairs: Vec<(&'static str, Value)>,
    key: &'static str,
    value: Value,
) -> Result<Tokenizer, TokenizerError> {
    build(pairs.into_iter().filter(|(k, _)| *k != key).chain([(key, value)]).collect())
}

#[test]
fn a_byte_level_vocabulary_serves() {
    let tokenizer = build(byte_pairs()).unwrap();
    assert_eq!(tokenizer.encode("abba ab<|end|>b<user>").unwrap(), [3, 1, 0, 2, 3, 4, 1, 6]);
    assert_eq!(tokenizer.decode(&[3, 2, 4, 6, 5, 0]), "ab <user>a");
    assert_eq!(tokenizer.encode("[PAD5]").unwrap(), Vec::<u32>::new(), "bytes that it lacks say nothing");
    let begun = changed(byte_pairs(), "add_bos_token", Value::Bool(true)).unwrap();
    assert_eq!(begun.encode("b").unwrap(), [4, 1]);
    let llama3 = changed(byte_pairs(), "pre", Value::Text("llama-bpe".into())).unwrap();
    assert_eq!(llama3.encode("b").unwrap(), [4, 1], "Llama 3 starts every text");
}

#[test]
fn a_scored_vocabulary_serves() {
    let tokenizer = build(scored_pairs()).unwrap();
    assert_eq!(tokenizer.encode("abc").unwrap(), [1, 6, 10], "b and c meet before a and b");
    assert_eq!(tokenizer.encode("é ab").unwrap(), [1, 3, 4, 5, 9]);
    assert_eq!(tokenizer.decode(&[1, 3, 4, 5, 9]), "é ab");
    let prefixed = changed(scored_pairs(), "add_space_prefix", Value::Bool(true)).unwrap();
    assert_eq!(prefixed.encode("a").unwrap(), [1, 11]);
    assert_eq!(prefixed.decode(&[1, 11]), "a");
}

#[test]
fn decoder_vocabularies_that_lie_are_refused() {
    for (key, value) in [
        ("pre", Value::Text("wordpiece".into())),
        ("pre", Value::Int(1)),
        ("merges", Value::Texts(vec!["ab".into()])),
        ("merges", Value::Texts(vec!["a z".into()])),
        ("merges", Value::Int(1)),
        ("tokens", Value::Texts(vec!["a".into(); 7])),
        ("token_type", Value::Ints(vec![1])),
        ("bos_token_id", Value::Int(7)),
    ] {
        let case = format!("{key} = {value:?}");
        let pairs = byte_pairs().into_iter().chain([("add_bos_token", Value::Bool(true))]).collect();
        assert!(matches!(changed(pairs, key, value), Err(TokenizerError::Vocabulary(_))), "{case}");
    }
    for (key, value) in [
        ("scores", Value::Floats(vec![0.0; 3])),
        ("scores", Value::Floats(vec![f64::INFINITY; 12])),
        ("unknown_token_id", Value::Int(12)),
        ("bos_token_id", Value::Int(-1)),
    ] {
        let case = format!("{key} = {value:?}");
        assert!(matches!(changed(scored_pairs(), key, value), Err(TokenizerError::Vocabulary(_))), "{case}");
    }
}

#[test]
fn a_file_s_chat_template_knows_its_special_tokens() {
    let of = |source: Option<&str>| {
        let template =
            source.map(|source| ("tokenizer.chat_template".to_owned(), Value::Text(source.into())));
        let named = pairs().into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value));
        chat_template(&named.chain(template).collect())
    };
    assert!(of(None).unwrap().is_none());
    let template = of(Some("{{ messages[0].content }}{{ eos_token }}{{ unk_token }}{{ bos_token }}"));
    let hi = ChatMessage { role: Role::User, content: "hi".into() };
    assert_eq!(template.unwrap().unwrap().render(&[hi], UNIX_EPOCH).unwrap(), "hi</s><unk>");
    assert!(matches!(of(Some("{{")), Err(ChatTemplateError::Malformed(_))));
}
