//! `json.dumps` as transformers offers it to templates.

use minijinja::{
    Error, Value,
    value::{Kwargs, ValueKind},
};

/// How the text is laid out.
struct Style {
    /// Between items, and between a key and its value.
    separators: (String, String),
    /// Spaces a level; everything on one line without it.
    indent: Option<usize>,
    sort_keys: bool,
    ensure_ascii: bool,
}

/// The filter: `value|tojson(indent=…, separators=…, sort_keys=…, ensure_ascii=…)`.
pub(super) fn dumps(value: &Value, options: &Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let separators = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        _ if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        _ => (", ".to_owned(), ": ".to_owned()),
    };
    let flag = |name: &str| options.get::<Option<bool>>(name).map(Option::unwrap_or_default);
    let (sort_keys, ensure_ascii) = (flag("sort_keys")?, flag("ensure_ascii")?);
    options.assert_all_used()?;
    let mut json = String::new();
    Style { separators, indent, sort_keys, ensure_ascii }.write(value, 0, &mut json)?;
    Ok(json)
}

impl Style {
    fn write(&self, value: &Value, depth: usize, json: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None | ValueKind::Undefined => json.push_str("null"),
            ValueKind::Bool => json.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.quote(value.as_str().unwrap_or_default(), json),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(('[', ']'), items, depth, json, |item, json| self.write(&item, depth + 1, json))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort_by_key(Value::to_string);
                }
                self.list(('{', '}'), keys, depth, json, |key, json| {
                    self.quote(&key.to_string(), json);
                    json.push_str(&self.separators.1);
                    self.write(&value.get_item(&key)?, depth + 1, json)
                })?;
            }
            _ => json.push_str(&value.to_string()),
        }
        Ok(())
    }

    fn list(
        &self,
        (open, close): (char, char),
        items: Vec<Value>,
        depth: usize,
        json: &mut String,
        mut write: impl FnMut(Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        json.push(open);
        let empty = items.is_empty();
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                json.push_str(&self.separators.0);
            }
            self.break_line(depth + 1, json);
            write(item, json)?;
        }
        if !empty {
            self.break_line(depth, json);
        }
        json.push(close);
        Ok(())
    }

    fn break_line(&self, depth: usize, json: &mut String) {
        if let Some(indent) = self.indent {
            json.push('\n');
            json.extend(std::iter::repeat_n(' ', indent.saturating_mul(depth)));
        }
    }

    fn quote(&self, text: &str, json: &mut String) {
        json.push('"');
        for character in text.chars() {
            match character {
                '"' => json.push_str("\\\""),
                '\\' => json.push_str("\\\\"),
                '\n' => json.push_str("\\n"),
                '\r' => json.push_str("\\r"),
                '\t' => json.push_str("\\t"),
                '\u{8}' => json.push_str("\\b"),
                '\u{c}' => json.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    let units = &mut [0; 2];
                    for unit in c.encode_utf16(units) {
                        json.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => json.push(c),
            }
        }
        json.push('"');
    }
}
