//! From a request's grammar to what llguidance reads.

use std::fmt::Write;

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use super::vocabulary::Alphabet;
use crate::domain::Grammar;

/// What may stand between two tokens of JSON: nothing, a space, or a line break with its indentation. Bounded, so that a model
/// can't go on with white space for ever.
const JSON_SPACE: &str = r"\x20|\x0A\x20{0,40}";

/// The grammar as llguidance takes it. Texts that `alphabet` can't write are left out, as far as they are told by a regular
/// expression; a text that `loses_space` is written with one more space in front.
pub(super) fn top_level(grammar: &Grammar, alphabet: &Alphabet, loses_space: bool) -> TopLevelGrammar {
    match grammar {
        Grammar::JsonObject => json(json!({"type": "object"}), loses_space),
        Grammar::JsonSchema(schema) => {
            json(serde_json::from_str(schema.as_str()).expect("a schema is JSON"), loses_space)
        }
        Grammar::Regex(pattern) => {
            text(&format!("/{}/", llguidance::regex_to_lark(pattern.as_str(), "")), alphabet, loses_space)
        }
        Grammar::Choice(choices) => {
            let mut options = String::new();
            for choice in choices.texts() {
                let separator = if options.is_empty() { "" } else { " | " };
                // Writing to a string does not fail.
                let _ = write!(options, "{separator}{}", literal(choice));
            }
            text(&options, alphabet, loses_space)
        }
    }
}

/// A text of one terminal.
fn text(body: &str, alphabet: &Alphabet, loses_space: bool) -> TopLevelGrammar {
    let space = if loses_space { r#"" " "# } else { "" };
    TopLevelGrammar::from_lark(match alphabet.regex() {
        None => format!("start: TEXT\nTEXT: {space}BODY\nBODY: {body}\n"),
        Some(writable) => {
            let writable = if writable.is_empty() { "\"\"".to_owned() } else { format!("/{writable}/") };
            format!(
                "start: TEXT\nTEXT: {space}WRITABLE\nWRITABLE: BODY & ALPHABET\nALPHABET: {writable}\nBODY: {body}\n"
            )
        }
    })
}

fn json(schema: Value, loses_space: bool) -> TopLevelGrammar {
    let schema = spaced(schema);
    if !loses_space {
        return TopLevelGrammar::from_json_schema(schema);
    }
    TopLevelGrammar::from_lark(format!("start: \" \" value\nvalue: %json {schema}\n"))
}

/// The schema with our word on white space, whatever it says itself.
pub(super) fn spaced(schema: Value) -> Value {
    let mut object = match schema {
        Value::Object(object) => object,
        // Everything, or nothing.
        Value::Bool(false) => serde_json::Map::from_iter([("enum".to_owned(), json!([]))]),
        _ => serde_json::Map::new(),
    };
    object.insert("x-guidance".into(), json!({"whitespace_pattern": JSON_SPACE}));
    Value::Object(object)
}

/// A text in quotes, as Lark reads it: the escapes of JSON, and no character of control as it is.
fn literal(text: &str) -> String {
    Value::from(text).to_string().replace('\x7F', "\\u007f")
}
