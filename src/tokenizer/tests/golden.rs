//! Against transformers: `tests/golden/README.md` says how the cases were made.

use serde::Deserialize;

use super::*;
use crate::backbones::weights::Weights;

const DECODERS: [&str; 6] = ["gpt2", "llama", "llama3", "qwen2", "qwen3", "gemma3"];

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

/// A decoder-only family's tokenizer from its folder, and from its GGUF file.
fn both_of(family: &str) -> [Tokenizer; 2] {
    let weights = Weights::open(&golden(&format!("{family}.f32.gguf"))).unwrap();
    let from_gguf = Tokenizer::from_gguf(weights.metadata().unwrap()).unwrap();
    [Tokenizer::from_file(&golden(&format!("{family}/tokenizer.json"))).unwrap(), from_gguf]
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
fn a_gguf_file_s_tokenizer_is_the_folder_s_but_for_sentinels() {
    let weights = Weights::open(&golden("t5-v1_1.f32.gguf")).unwrap();
    let tokenizer = Tokenizer::from_gguf(weights.metadata().unwrap()).unwrap();
    for case in cases().encode.into_iter().filter(|case| !case.text.contains("extra_id")) {
        assert_eq!(tokenizer.encode(&case.text).unwrap(), case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.ids), case.decoded, "{:?}", case.text);
    }
}

#[test]
fn a_client_has_read_the_reference_s_text_after_every_token() {
    let tokenizer = Tokenizer::from_file(&golden("t5-v1_1/tokenizer.json")).unwrap();
    assert_streams(&tokenizer, cases());
    for family in DECODERS {
        for tokenizer in both_of(family) {
            assert_streams(&tokenizer, cases_of(&format!("expected/{family}.tokenizer.json")));
        }
    }
}

fn assert_streams(tokenizer: &Tokenizer, cases: Cases) {
    assert!(!cases.stream.is_empty());
    for case in cases.stream {
        let mut detokenizer = Detokenizer::new(tokenizer.clone());
        let mut read = String::new();
        for (id, expected) in case.ids.iter().zip(&case.prefixes) {
            read.extend(detokenizer.push(*id));
            // What a broken character's bytes become is seen only when it is whole.
            let certain = expected.trim_end_matches('\u{fffd}');
            assert!(read == certain || read == *expected, "{:?}: {read:?} {expected:?}", case.ids);
        }
        read.extend(detokenizer.flush());
        assert_eq!(&read, case.prefixes.last().unwrap());
    }
}

#[test]
fn decoder_families_cut_and_join_texts_as_the_reference_from_either_file() {
    for family in DECODERS {
        let cases = cases_of(&format!("expected/{family}.tokenizer.json"));
        for (tokenizer, kind) in both_of(family).into_iter().zip(["json", "gguf"]) {
            for case in &cases.encode {
                assert_eq!(
                    tokenizer.encode(&case.text).unwrap(),
                    case.ids,
                    "{family} {kind} {:?}",
                    case.text
                );
                assert_eq!(tokenizer.decode(&case.ids), case.decoded, "{family} {kind} {:?}", case.text);
            }
        }
    }
}
