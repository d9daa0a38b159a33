//! A prompt template: text with `{field}` places; `{{` and `}}` stand for braces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Longest template in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 64 << 10;

/// Why a text is not a template, or can't be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Longer than any prompt.
    #[error("the template has {0} bytes, at most {MAX_TEMPLATE_BYTES} are allowed")]
    TooLong(usize),
    /// A brace stands alone.
    #[error("a lone '{brace}' at byte {at}: write '{brace}{brace}' for the character itself")]
    LoneBrace {
        /// Which of the two.
        brace: char,
        /// Its place.
        at: usize,
    },
    /// What stands between braces is no name.
    #[error(
        "'{{{name}}}' at byte {at} is not a field: use letters, digits and '_', not starting with a digit"
    )]
    FieldName {
        /// What stands there.
        name: String,
        /// The place of its brace.
        at: usize,
    },
    /// There is no place to fill in.
    #[error("the template has no field such as '{{text}}'")]
    NoField,
    /// Inputs lack fields.
    #[error("missing {missing}: the template needs {needed}")]
    MissingFields {
        /// The fields without a value, quoted.
        missing: String,
        /// All fields, quoted.
        needed: String,
    },
    /// Inputs have fields that the template lacks.
    #[error("unknown {unknown}: the template has only {needed}")]
    UnknownFields {
        /// The values without a place, quoted.
        unknown: String,
        /// All fields, quoted.
        needed: String,
    },
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

/// A parsed prompt template with at least one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    fields: BTreeSet<String>,
}

impl Template {
    /// From its text.
    ///
    /// # Errors
    /// When braces do not pair, a field has no proper name, or there is no field.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLong(text.len()));
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find(['{', '}']) {
            plain.push_str(&text[at..at + found]);
            at += found;
            let rest = &text[at..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                plain.push_str(&rest[..1]);
                at += 2;
                continue;
            }
            let name = field_name(rest, at)?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            at += name.len() + 2;
            pieces.push(Piece::Field(name.to_owned()));
        }
        plain.push_str(&text[at..]);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        let fields: BTreeSet<_> = pieces.iter().filter_map(Piece::field).cloned().collect();
        if fields.is_empty() { Err(TemplateError::NoField) } else { Ok(Self { pieces, fields }) }
    }

    /// The names of its fields, each once, in alphabetical order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(String::as_str)
    }

    /// The text with every field replaced by its input. Braces in inputs are plain text.
    ///
    /// # Errors
    /// When inputs lack a field or have one too many.
    pub fn render(&self, inputs: &BTreeMap<String, String>) -> Result<String, TemplateError> {
        let missing: Vec<_> = self.fields().filter(|field| !inputs.contains_key(*field)).collect();
        let unknown: Vec<_> =
            inputs.keys().filter(|field| !self.fields.contains(*field)).map(String::as_str).collect();
        let needed = || named(&self.fields().collect::<Vec<_>>());
        if !missing.is_empty() {
            return Err(TemplateError::MissingFields { missing: named(&missing), needed: needed() });
        }
        if !unknown.is_empty() {
            return Err(TemplateError::UnknownFields { unknown: named(&unknown), needed: needed() });
        }
        let part = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field(field) => inputs.get(field).cloned().unwrap_or_default(),
        };
        Ok(self.pieces.iter().map(part).collect())
    }
}

impl Piece {
    fn field(&self) -> Option<&String> {
        match self {
            Self::Field(name) => Some(name),
            Self::Text(_) => None,
        }
    }
}

impl fmt::Display for Template {
    /// The text it was parsed from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Piece::Field(name) => write!(f, "{{{name}}}"),
        })
    }
}

/// The name in `rest`, which starts with a brace that is at byte `at` of the template.
fn field_name(rest: &str, at: usize) -> Result<&str, TemplateError> {
    let Some(inner) = rest.strip_prefix('{') else {
        return Err(TemplateError::LoneBrace { brace: '}', at });
    };
    let Some((name, _)) = inner.split_once('}') else {
        return Err(TemplateError::LoneBrace { brace: '{', at });
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts_well && name.chars().all(word) {
        return Ok(name);
    }
    Err(TemplateError::FieldName { name: name.chars().take(40).collect(), at })
}

/// `field 'a'` or `fields 'a', 'b'`.
fn named(fields: &[&str]) -> String {
    let quoted: Vec<_> = fields
        .iter()
        .take(16)
        .map(|field| format!("'{}'", field.chars().take(64).collect::<String>()))
        .collect();
    format!("field{} {}", if fields.len() == 1 { "" } else { "s" }, quoted.join(", "))
}
