use proptest::prelude::*;

use super::*;

fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<Option<String>> {
    let mut detokenizer = Detokenizer::new(tokenizer.clone());
    let mut pieces: Vec<_> = ids.iter().map(|&id| detokenizer.push(id)).collect();
    pieces.push(detokenizer.flush());
    pieces
}

fn joined(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    pieces(tokenizer, ids).into_iter().flatten().collect()
}

/// What the library says of the whole sequence.
fn whole(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    tokenizer.inner.tokenizer.decode(ids, true).unwrap()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn spaces_stand_between_words_only() {
    let found = pieces(&t5_like(), &[0, 4, 1, 5, 6, 3, 12]);
    let expected = [None, some("the"), None, some(" cat"), some("s"), some(" "), some(" sat"), None];
    assert_eq!(found, expected);
}

#[test]
fn a_character_comes_whole() {
    let tokenizer = byte_level();
    let ids = tokenizer.encode("é中x").unwrap();
    assert_eq!(ids.len(), 6);
    let found = pieces(&tokenizer, &ids);
    assert_eq!(found, [None, some("é"), None, None, some("中"), some("x"), None]);
    assert_eq!(pieces(&tokenizer, &ids[..4]).last().unwrap().as_deref(), Some("\u{fffd}"));
}

#[test]
fn bytes_that_never_become_text_don_t_pile_up() {
    for tokenizer in [byte_level(), byte_fallback()] {
        let broken = tokenizer.id("<0xFF>").unwrap_or(255);
        let mut detokenizer = Detokenizer::new(tokenizer);
        let mut text = String::new();
        for _ in 0..100 {
            text.extend(detokenizer.push(broken));
            assert!(detokenizer.window.len() < 40);
        }
        text.extend(detokenizer.flush());
        assert_eq!(text.matches('\u{fffd}').count(), 100);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn pieces_join_to_the_whole_text(ids in proptest::collection::vec(0u32..16, 0..60)) {
        let tokenizer = t5_like();
        prop_assert_eq!(joined(&tokenizer, &ids), whole(&tokenizer, &ids));
    }

    #[test]
    fn spread_characters_join_to_the_whole_text(text in any::<String>()) {
        for tokenizer in [byte_level(), byte_fallback()] {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(joined(&tokenizer, &ids), whole(&tokenizer, &ids));
        }
    }

    #[test]
    fn random_bytes_never_panic(ids in proptest::collection::vec(0u32..262, 0..80)) {
        for tokenizer in [byte_level(), byte_fallback()] {
            prop_assert_eq!(joined(&tokenizer, &ids), tokenizer.decode(&ids));
        }
    }
}
