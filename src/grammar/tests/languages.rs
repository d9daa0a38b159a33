//! Whole texts under each kind of grammar.

use serde_json::json;

use super::*;

#[test]
fn a_regex_is_matched_as_a_whole() {
    let date = regex(r"\d{4}-(0[1-9]|1[0-2])");
    assert_eq!(writes(&date, "2024-11"), Some(true));
    assert_eq!(writes(&date, "2024-1"), Some(false));
    assert_eq!(writes(&date, "2024-13"), None);
    assert_eq!(writes(&date, "x"), None);
    // Anchors at the ends say nothing new; slashes, quotes and backslashes are themselves.
    assert_eq!(writes(&regex("^ab$"), "ab"), Some(true));
    assert_eq!(writes(&regex(r#"/"\\\n"#), "/\"\\\n"), Some(true));
    assert_eq!(writes(&regex("(yes)?"), ""), Some(true));
    assert_eq!(writes(&regex("[äö]+"), "äöä"), Some(true));
    assert_eq!(writes(&regex("a|(?i)hello"), "HeLLo"), Some(true));
}

#[test]
fn a_choice_is_one_of_its_texts_to_the_letter() {
    let texts =
        ["yes", "yes, sir", "no \"quotes\"", "back\\slash", "line\nbreak", "\u{7f}\u{0}", "größer", "😀"];
    let grammar = choice(&texts);
    for text in texts {
        assert_eq!(writes(&grammar, text), Some(true), "{text:?}");
    }
    assert_eq!(writes(&grammar, "ye"), Some(false));
    assert_eq!(writes(&grammar, "Yes"), None);
    assert_eq!(writes(&grammar, "yes, sirs"), None);
    let last = choice(&["a"]);
    let mut guide = Guide::new(compile(&last, &bytes()).unwrap());
    assert_eq!(guide.advance(u32::from(b'a') + 1), Ok(Progress::Whole));
    assert_eq!(allowed(guide.mask().unwrap(), 257), [END]);
    assert!(!guide.has_more());
}

#[test]
fn json_is_written_in_the_order_of_the_schema_with_bounded_space() {
    let person = schema(json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": false,
    }));
    assert_eq!(writes(&person, r#"{"name":"Ann","age":7}"#), Some(true));
    assert_eq!(writes(&person, r#"{ "name": "Ann", "age": 7 }"#), Some(true));
    assert_eq!(writes(&person, "{\n    \"name\": \"Änn\\n\",\n    \"age\": 150\n}"), Some(true));
    assert_eq!(writes(&person, r#"{"name":"Ann","age":151"#), None);
    assert_eq!(writes(&person, r#"{"age":1"#), None);
    assert_eq!(writes(&person, r#"{"name":"Ann"}"#), None);
    assert_eq!(writes(&person, r#"{  "#), None, "one space is enough");
    assert_eq!(writes(&person, " {"), None);
    assert_eq!(writes(&person, r#"{"name":"Ann","age":7} "#), None, "nothing comes behind the object");
}

#[test]
fn a_large_schema_begins_aside_and_ends_with_the_end_token_where_its_first_token_is_all() {
    let names: Vec<String> = (0..400).map(|at| format!("property {at}")).collect();
    let grammar = schema(json!({"enum": names}));
    assert_eq!(writes(&grammar, "\"property 399\""), Some(true));
    assert_eq!(writes(&grammar, "\"property 400"), None);
    let whole = vocabulary(&["7", "\"", "p"], Beginning::AsIs);
    let long = json!({"description": "x".repeat(5000), "enum": [7]});
    let mut guide = Guide::new(compile(&schema(long), &whole).unwrap());
    assert_eq!(guide.advance(1), Ok(Progress::GoesOn), "not looked at yet");
    assert!(!guide.has_more());
    assert_eq!(allowed(guide.mask().unwrap(), 4), [END]);
}

#[test]
fn an_object_without_a_schema_is_any_object() {
    for text in [r#"{}"#, r#"{"a": [1, -2.5e3, null, {"b": "c"}]}"#] {
        assert_eq!(writes(&Grammar::JsonObject, text), Some(true), "{text}");
    }
    assert_eq!(writes(&Grammar::JsonObject, "[1]"), None);
}

#[test]
fn a_schema_says_what_it_says_whoever_wrote_it() {
    // The word on white space is ours.
    let own = schema(json!({"type": "array", "x-guidance": {"whitespace_flexible": true, "lenient": true}}));
    assert_eq!(writes(&own, "[\t"), None);
    assert_eq!(writes(&schema(json!(true)), "[null, 1]"), Some(true));
    let list = json!({
        "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
            "required": ["next"], "additionalProperties": false}},
        "$ref": "#/$defs/node",
    });
    assert_eq!(writes(&schema(list), r#"{"next":{"next":{"next":null}}}"#), Some(true));
}

#[test]
fn a_text_of_the_embedded_model_begins_behind_the_space_that_decoding_drops() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/flan-t5-small-en/tokenizer.json");
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    let vocabulary = embedded();
    for text in ["positive", "very negative", "0", "a–b", " x", "[1, 2]"] {
        let mut guide = Guide::new(compile(&choice(&[text]), &vocabulary).unwrap());
        // With a space in front, the first of which is dropped.
        let ids = tokenizer.encode_bare(text).unwrap();
        assert_eq!(tokenizer.decode(&ids), text.trim_start());
        let (mut whole, mut text_ids) = (false, Vec::new());
        let mark = tokenizer.id("▁").unwrap();
        let spelt = if text.starts_with(' ') { [vec![mark], ids].concat() } else { ids };
        for id in spelt {
            assert!(allowed(guide.mask().unwrap(), tokenizer.id_bound()).contains(&id), "{text:?}: {id}");
            whole = guide.advance(id).unwrap() == Progress::Whole;
            text_ids.push(id);
        }
        assert!(whole, "{text:?}");
        assert_eq!(tokenizer.decode(&text_ids), text);
    }
}
