use super::{super::vocabulary::from_metadata, *};
use crate::tokenizer::{Tokenizer, TokenizerError};

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
