//! Where a folder keeps its template.

use std::{fs, io::ErrorKind, path::Path};

use serde_json::Value;

use super::{ChatTemplate, ChatTemplateError};

/// The special tokens that a tokenizer names.
const SPECIALS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl ChatTemplate {
    /// The template of a Hugging Face folder: `chat_template.jinja`, else the one in `tokenizer_config.json`, of several the
    /// one called `default`. `None` where there is none.
    ///
    /// # Errors
    /// When a file can't be read, or what it holds is not a template.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>, ChatTemplateError> {
        let config = json(&folder.join("tokenizer_config.json"))?.unwrap_or(Value::Null);
        let Some(source) =
            read(&folder.join("chat_template.jinja"))?.or_else(|| configured(&config["chat_template"]))
        else {
            return Ok(None);
        };
        let map = json(&folder.join("special_tokens_map.json"))?.unwrap_or(Value::Null);
        let specials = SPECIALS.iter().filter_map(|&name| {
            let token = token(&config[name]).or_else(|| token(&map[name]))?;
            Some((name.to_owned(), token))
        });
        Self::new(&source, specials.collect()).map(Some)
    }
}

/// A template, or a list of named ones.
fn configured(field: &Value) -> Option<String> {
    let default = || field.as_array()?.iter().find(|named| named["name"] == "default");
    field.as_str().or_else(|| default()?["template"].as_str()).map(str::to_owned)
}

/// A token, or an object that has it.
fn token(field: &Value) -> Option<String> {
    field.as_str().or_else(|| field["content"].as_str()).map(str::to_owned)
}

fn json(path: &Path) -> Result<Option<Value>, ChatTemplateError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let value = serde_json::from_str(&text).map_err(|error| malformed(path, error))?;
    Ok(Some(value))
}

fn read(path: &Path) -> Result<Option<String>, ChatTemplateError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(malformed(path, error)),
    }
}

fn malformed(path: &Path, error: impl std::fmt::Display) -> ChatTemplateError {
    ChatTemplateError::Malformed(format!("'{}': {error}", path.display()))
}
