//! Against transformers: `tests/golden/README.md` says how the cases were made.

use serde::Deserialize;

use super::*;

const DECODERS: [&str; 7] = ["gpt2", "llama", "llama3", "qwen2", "qwen3", "gemma2", "gemma3"];

#[derive(Deserialize)]
struct Cases {
    encode: Vec<Encoded>,
    stream: Vec<Streamed>,
}

#[derive(Deserialize)]
struct Encoded {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

#[derive(Deserialize)]
struct Streamed {
    ids: Vec<u32>,
    /// The text after each id.
    prefixes: Vec<String>,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn cases() -> Cases {
    cases_of("tokenizer_cases.json")
}

fn cases_of(file: &str) -> Cases {
    serde_json::from_slice(&fs::read(golden(file)).unwrap()).unwrap()
}

#[test]
fn texts_become_the_reference_s_ids_and_back() {
    let tokenizer = Tokenizer::from_file(&golden("t5-v1_1/tokenizer.json")).unwrap();
    for case in cases().encode {
        assert_eq!(tokenizer.encode(&case.text).unwrap(), case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.ids), case.decoded, "{:?}", case.text);
    }
}

#[test]
fn a_client_has_read_the_reference_s_text_after_every_token() {
    let tokenizer = Tokenizer::from_file(&golden("t5-v1_1/tokenizer.json")).unwrap();
    assert_streams(&tokenizer, cases());
    for family in DECODERS {
        let tokenizer = Tokenizer::from_file(&golden(&format!("{family}/tokenizer.json"))).unwrap();
        assert_streams(&tokenizer, cases_of(&format!("expected/{family}.tokenizer.json")));
    }
}

fn assert_streams(tokenizer: &Tokenizer, cases: Cases) {
    assert!(!cases.stream.is_empty());
    for case in cases.stream {
        let last = case.prefixes.last().unwrap();
        let whole = |prefix: &&String| !prefix.ends_with('\u{fffd}');
        if !case.prefixes.iter().filter(whole).all(|prefix| last.starts_with(prefix)) {
            // Byte tokens that don't end in whole characters spoil those before them: no client can un-read a text.
            continue;
        }
        let mut detokenizer = Detokenizer::new(tokenizer.clone());
        let mut read = String::new();
        for (id, expected) in case.ids.iter().zip(&case.prefixes) {
            read.extend(detokenizer.push(*id));
            // The library marks a character that isn't whole yet, and byte tokens before it too; a client waits for it.
            match expected.ends_with('\u{fffd}') {
                true => assert!(last.starts_with(&read), "{:?}: {read:?}", case.ids),
                false => assert_eq!(&read, expected, "{:?}", case.ids),
            }
        }
        read.extend(detokenizer.flush());
        assert_eq!(&read, last);
    }
}

#[test]
fn decoder_families_cut_and_join_texts_as_the_reference() {
    for family in DECODERS {
        let tokenizer = Tokenizer::from_file(&golden(&format!("{family}/tokenizer.json"))).unwrap();
        for case in cases_of(&format!("expected/{family}.tokenizer.json")).encode {
            assert_eq!(tokenizer.encode(&case.text).unwrap(), case.ids, "{family} {:?}", case.text);
            assert_eq!(tokenizer.decode(&case.ids), case.decoded, "{family} {:?}", case.text);
        }
    }
}

#[test]
fn the_bytes_of_a_text_s_tokens_are_the_text() {
    let text = "It's 42: naïve 世界 🌍\n\tok";
    for family in DECODERS {
        let tokenizer = Tokenizer::from_file(&golden(&format!("{family}/tokenizer.json"))).unwrap();
        let ids = tokenizer.encode_bare(text).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
        let read = String::from_utf8(bytes).unwrap();
        // SentencePiece puts a space in front.
        assert_eq!(read.strip_prefix(' ').unwrap_or(&read), text, "{family}");
    }
}
