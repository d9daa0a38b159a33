mod detokenizing;
mod encoding;
mod golden;
mod stopping;

use serde_json::{Value as Json, json};

use super::*;

/// T5's kind: Unigram, Metaspace, `</s>` behind every text. Truncation and padding are on, as in many files.
fn t5_like() -> Tokenizer {
    let pieces = ["<pad>", "</s>", "<unk>", "▁", "▁the", "▁cat", "s", "a", "t", "▁a", "é", "▁▁", "▁sat", "c"];
    let vocab: Vec<Json> = pieces.iter().enumerate().map(|(i, p)| json!([p, -(i as f64) / 10.0])).collect();
    let special = |id: u32| {
        json!({"id": id, "content": pieces[id as usize], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    parse(json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "<pad>"},
        "added_tokens": [special(0), special(1), special(2)],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false},
    }))
}

/// GPT-2's kind, a token a byte: every character beyond ASCII is spread over several.
fn byte_level() -> Tokenizer {
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut moved = 256..;
    let letters = (0..256u32).map(|b| if printable(b) { b } else { moved.next().unwrap() });
    let vocab: serde_json::Map<String, Json> =
        letters.enumerate().map(|(i, c)| (char::from_u32(c).unwrap().to_string(), json!(i))).collect();
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    parse(json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": level, "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }))
}

/// Llama's first kind: words with marks, and bytes where no word serves.
fn byte_fallback() -> Tokenizer {
    let words = ["<unk>", "▁", "▁a", "b", "▁the"].map(str::to_owned);
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let vocab: serde_json::Map<String, Json> =
        words.into_iter().chain(bytes).enumerate().map(|(i, p)| (p, json!(i))).collect();
    parse(json!({
        "version": "1.0", "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>", "byte_fallback": true},
    }))
}

fn parse(content: Json) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, content.to_string()).unwrap();
    Tokenizer::from_file(&path).unwrap()
}
