//! The bytes of tokens against what the library decodes them to.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::grammar::vocabulary::Alphabet;

fn golden(name: &str) -> Tokenizer {
    let folder = if name == "flan-t5-small-en" { "models" } else { "tests/golden" };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name).join("tokenizer.json");
    Tokenizer::from_file(&path).unwrap()
}

/// What decoding `ids` should give.
fn spelt(spelling: &Spelling, ids: &[u32]) -> Vec<u8> {
    let words: Vec<&[u8]> = ids.iter().map(|&id| spelling.words[id as usize].as_slice()).collect();
    let text = words.concat();
    match spelling.beginning {
        Beginning::AsIs => text,
        Beginning::LosesOne => text.strip_prefix(b" ").unwrap_or(&text).to_vec(),
        Beginning::LosesAllOfFirst => {
            let first = words.iter().position(|word| !word.is_empty()).unwrap_or(0);
            let begun: Vec<u8> = words[first].iter().copied().filter(|&byte| byte != b' ').collect();
            [begun, words[first + 1..].concat()].concat()
        }
    }
}

#[test]
fn tokens_write_what_they_are_decoded_to() {
    let names = [
        "flan-t5-small-en",
        "t5-v1_0",
        "t5-v1_1",
        "gpt2",
        "llama",
        "llama3",
        "qwen2",
        "qwen3",
        "gemma2",
        "gemma3",
    ];
    for name in names {
        let tokenizer = golden(name);
        let spelling = tokenizer.spelling().unwrap();
        assert_eq!(spelling.words.len(), tokenizer.id_bound(), "{name}");
        let mut random = SmallRng::seed_from_u64(7);
        let mut compared = 0;
        for _ in 0..3000 {
            let length = random.random_range(1..8);
            let ids: Vec<u32> =
                (0..length).map(|_| random.random_range(0..spelling.words.len() as u32)).collect();
            // A broken character is decoded to a mark, which no grammar lets happen.
            let Ok(text) = String::from_utf8(spelt(&spelling, &ids)) else { continue };
            assert_eq!(tokenizer.decode(&ids), text, "{name}: {ids:?}");
            compared += 1;
        }
        assert!(compared > 300, "{name}: {compared} texts were compared");
    }
}

#[test]
fn special_tokens_write_nothing_and_every_byte_may_have_its_token() {
    let t5 = golden("flan-t5-small-en").spelling().unwrap();
    assert_eq!(t5.beginning, Beginning::LosesAllOfFirst);
    assert!((0..3).all(|id| t5.words[id].is_empty()));
    assert_eq!(embedded().alphabet.missing("é{a"), ['{'].into());
    // SmolLM2 has no token for some bytes: their characters are missing, and nothing else is.
    let words: Vec<Vec<u8>> =
        (0..=u8::MAX).filter(|byte| !matches!(byte, 0x04 | 0xF1)).map(|byte| vec![byte]).collect();
    let partial = Vocabulary::new(Spelling { words, beginning: Beginning::AsIs }, 254, &[]).unwrap();
    assert_eq!(partial.alphabet.missing("日a\u{4}\u{5}😀\u{50000}"), ['\u{4}', '\u{50000}'].into());
    assert_eq!(bytes().alphabet, Alphabet::All);
    for name in ["gpt2", "llama", "llama3", "qwen3"] {
        let tokenizer = golden(name);
        let vocabulary = Vocabulary::new(tokenizer.spelling().unwrap(), tokenizer.id_bound(), &[]).unwrap();
        assert_eq!(vocabulary.alphabet, Alphabet::All, "{name}");
    }
}

#[test]
fn the_end_token_writes_nothing_and_rows_without_a_token_are_never_allowed() {
    let words = vec![b"x".to_vec(), b"a".to_vec(), b"b".to_vec(), vec![b'a'; 2000], b"\xffa".to_vec()];
    let spelling = Spelling { words, beginning: Beginning::AsIs };
    // The model has fewer rows than the tokenizer has ids, or more.
    for (size, expected) in [(2, vec![1]), (40, vec![1, 2])] {
        let vocabulary = Arc::new(Vocabulary::new(spelling.clone(), size, &[END, 99]).unwrap());
        let mut guide = Guide::new(compile(&regex("[abx]{1,3000}"), &vocabulary).unwrap());
        assert_eq!(allowed(guide.mask().unwrap(), size), expected);
        guide.advance(1).unwrap();
        let more: Vec<u32> = [END].into_iter().chain(expected).collect();
        assert_eq!(allowed(guide.mask().unwrap(), size), more);
    }
}
