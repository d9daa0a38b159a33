use std::collections::BTreeMap;

/// A metadata value. Integers are widened; arrays keep one type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer.
    Int(i128),
    /// Any float.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// Array of 8-bit integers, as their bytes.
    Bytes(Vec<u8>),
    /// Array of wider integers.
    Ints(Vec<i64>),
    /// Array of floats.
    Floats(Vec<f64>),
    /// Array of truths.
    Bools(Vec<bool>),
    /// Array of texts.
    Texts(Vec<String>),
}

/// A GGUF file's key-value pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    values: BTreeMap<String, Value>,
}

impl FromIterator<(String, Value)> for Metadata {
    fn from_iter<T: IntoIterator<Item = (String, Value)>>(pairs: T) -> Self {
        Self { values: pairs.into_iter().collect() }
    }
}

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Every key with its value, in order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// An integer that fits `usize`.
    pub fn int(&self, key: &str) -> Option<usize> {
        match self.get(key)? {
            Value::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A float; an integer serves too.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::Float(value) => Some(*value),
            Value::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// A truth.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(value) => Some(value),
            _ => None,
        }
    }

    /// An array of texts.
    pub fn texts(&self, key: &str) -> Option<&[String]> {
        match self.get(key)? {
            Value::Texts(values) => Some(values),
            _ => None,
        }
    }

    /// `general.architecture`, or nothing.
    pub fn architecture(&self) -> &str {
        self.text("general.architecture").unwrap_or_default()
    }
}
