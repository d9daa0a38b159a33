//! Values as Python prints them.

use minijinja::{Value, value::ValueKind};

/// `str(value)`; nothing for what is undefined.
pub(super) fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => repr(value),
    }
}

/// `repr(value)`.
fn repr(value: &Value) -> String {
    let items = |open: &str, items: Vec<String>, close: &str| format!("{open}{}{close}", items.join(", "));
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            items("[", value.try_iter().into_iter().flatten().map(|item| repr(&item)).collect(), "]")
        }
        ValueKind::Map => {
            let pair = |key: Value| {
                let held = value.get_item(&key).unwrap_or(Value::UNDEFINED);
                format!("{}: {}", repr(&key), repr(&held))
            };
            items("{", value.try_iter().into_iter().flatten().map(pair).collect(), "}")
        }
        _ => value.to_string(),
    }
}

/// A string literal: in single quotes, unless it has some and no double ones.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut literal = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            c if c == quote => literal.extend(['\\', c]),
            c if c.is_ascii_control() => literal.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => literal.push(c),
        }
    }
    literal.push(quote);
    literal
}
