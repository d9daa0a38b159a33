//! One model in several files: `tests/golden/README.md` says how they were made.

use super::*;

fn golden(name: &str) -> Weights {
    Weights::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

#[test]
fn a_gguf_file_holds_the_folder_s_tensors_under_the_same_names() {
    let (folder, file) = (golden("t5-v1_1"), golden("t5-v1_1.f32.gguf"));
    assert!(folder.tensors().count() > 40);
    for info in folder.tensors() {
        let expected = folder.tensor_f32(info.name, info.shape).unwrap();
        assert_eq!(file.tensor_f32(info.name, info.shape).unwrap(), expected, "{}", info.name);
    }
    assert_eq!(file.metadata().unwrap().int("t5.block_count"), Some(1));
    assert_ne!(folder.fingerprint(), file.fingerprint());
}

#[test]
fn decoders_in_gguf_hold_their_folder_s_tensors() {
    // GPT-2's are turned round, Llama's q and k reordered and Gemma's norms moved: the decoder's own tests see to those.
    for family in ["qwen2", "qwen3"] {
        let (folder, file) = (golden(family), golden(&format!("{family}.f32.gguf")));
        assert!(folder.tensors().count() > 20);
        for info in folder.tensors() {
            let expected = folder.tensor_f32(info.name, info.shape).unwrap();
            assert_eq!(file.tensor_f32(info.name, info.shape).unwrap(), expected, "{}", info.name);
        }
    }
}

#[test]
fn q8_0_is_the_folder_s_tensors_rounded() {
    let (folder, file) = (golden("t5-v1_1"), golden("t5-v1_1.q8_0.gguf"));
    assert!(file.tensors().any(|info| info.format.name() == "Q8_0"));
    for info in folder.tensors() {
        let expected = folder.tensor_f32(info.name, info.shape).unwrap();
        let found = file.tensor_f32(info.name, info.shape).unwrap();
        for (expected, found) in expected.chunks(32).zip(found.chunks(32)) {
            let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
            // Half a step, and the half-precision scale's own rounding over 127 steps.
            let bound = largest * (0.5 / 127.0 + 1.0 / 2048.0) + 1e-7;
            let close = expected.iter().zip(found).all(|(a, b)| (a - b).abs() <= bound);
            assert!(close, "{}: {expected:?} {found:?}", info.name);
        }
    }
}

#[test]
fn shards_hold_what_the_single_file_holds() {
    let (single, shards) = (golden("t5-v1_0"), golden("t5-v1_0-sharded"));
    for info in single.tensors() {
        let expected = single.tensor_f32(info.name, info.shape).unwrap();
        assert_eq!(shards.tensor_f32(info.name, info.shape).unwrap(), expected, "{}", info.name);
    }
}

#[test]
fn a_gguf_file_s_tokenizer_is_the_folder_s_but_for_sentinels() {
    let (folder, file) =
        (golden("t5-v1_1").tokenizer().unwrap(), golden("t5-v1_1.f32.gguf").tokenizer().unwrap());
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer_cases.json");
    let cases: serde_json::Value = serde_json::from_slice(&fs::read(cases).unwrap()).unwrap();
    let texts = cases["encode"].as_array().unwrap().iter().map(|case| case["text"].as_str().unwrap());
    for text in texts.filter(|text| !text.contains("extra_id")) {
        let ids = folder.encode(text).unwrap();
        assert_eq!(file.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(file.decode(&ids), folder.decode(&ids), "{text:?}");
    }
}

#[test]
fn decoders_gguf_tokenizers_are_their_folders() {
    for family in ["gpt2", "llama", "llama3", "qwen2", "qwen3", "gemma2", "gemma3"] {
        let tokenizer = golden(&format!("{family}.f32.gguf")).tokenizer().unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/expected");
        let cases = fs::read(folder.join(format!("{family}.tokenizer.json"))).unwrap();
        let cases: serde_json::Value = serde_json::from_slice(&cases).unwrap();
        for case in cases["encode"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{family} {text:?}");
            assert_eq!(tokenizer.decode(&ids), case["decoded"].as_str().unwrap(), "{family} {text:?}");
        }
    }
}
