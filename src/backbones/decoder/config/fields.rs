//! One way to ask a `config.json` and GGUF metadata for the same fact.

use serde_json::Value as Json;

use super::{Architecture, ConfigError};
use crate::backbones::weights::{Metadata, Value, Weights};

/// Where a fact stands in each format. A GGUF key stands behind the architecture's name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub json: &'static str,
    pub gguf: &'static str,
}

/// The configuration of an open checkpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    pub weights: &'a Weights,
    source: Source<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    /// The whole file, and the part about text, where there are others.
    Json {
        whole: &'a Json,
        text: &'a Json,
    },
    Gguf(&'a Metadata),
}

impl<'a> Fields<'a> {
    pub fn of(weights: &'a Weights) -> Result<Self, ConfigError> {
        let source = match (weights.config(), weights.metadata()) {
            (Some(whole), _) => Source::Json { whole, text: whole.get("text_config").unwrap_or(whole) },
            (None, Some(metadata)) => Source::Gguf(metadata),
            (None, None) => return Err(ConfigError::Missing(weights.path().display().to_string())),
        };
        Ok(Self { weights, source })
    }

    pub fn architecture(&self) -> Result<Architecture, ConfigError> {
        let found = match self.source {
            Source::Gguf(metadata) => metadata.architecture(),
            Source::Json { whole, .. } => {
                let named = whole["model_type"].as_str().or_else(|| whole["architectures"][0].as_str());
                named.ok_or_else(|| ConfigError::Key("model_type".to_owned()))?
            }
        };
        Architecture::find(found).ok_or_else(|| ConfigError::Unsupported { found: found.to_owned() })
    }

    /// The text part of `config.json`; `None` for a GGUF file.
    pub fn json(&self) -> Option<&'a Json> {
        match self.source {
            Source::Json { text, .. } => Some(text),
            Source::Gguf(_) => None,
        }
    }

    /// The metadata of a GGUF file; `None` for a folder.
    pub fn gguf(&self) -> Option<&'a Metadata> {
        match self.source {
            Source::Json { .. } => None,
            Source::Gguf(metadata) => Some(metadata),
        }
    }

    /// The key's name in this checkpoint.
    fn name(&self, key: Key) -> String {
        match self.source {
            Source::Json { .. } => key.json.to_owned(),
            Source::Gguf(metadata) => format!("{}.{}", metadata.architecture(), key.gguf),
        }
    }

    /// A count that may be absent.
    pub fn some_count(&self, key: Key) -> Result<Option<usize>, ConfigError> {
        let name = self.name(key);
        match self.source {
            Source::Json { text, .. } => match &text[key.json] {
                Json::Null => Ok(None),
                value => {
                    let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
                    count
                        .map(Some)
                        .ok_or_else(|| ConfigError::value(&name, value.to_string(), "a whole number"))
                }
            },
            Source::Gguf(metadata) => match metadata.get(&name) {
                None => Ok(None),
                Some(value) => metadata
                    .int(&name)
                    .map(Some)
                    .ok_or_else(|| ConfigError::value(&name, format!("{value:?}"), "a whole number")),
            },
        }
    }

    /// A count that has to be there.
    pub fn count(&self, key: Key) -> Result<usize, ConfigError> {
        self.some_count(key)?.ok_or_else(|| ConfigError::Key(self.name(key)))
    }

    /// A number that may be absent.
    pub fn some_number(&self, key: Key) -> Result<Option<f64>, ConfigError> {
        let name = self.name(key);
        match self.source {
            Source::Json { text, .. } => number(&text[key.json], &name),
            Source::Gguf(metadata) => match metadata.get(&name) {
                None => Ok(None),
                Some(value) => metadata
                    .float(&name)
                    .map(Some)
                    .ok_or_else(|| ConfigError::value(&name, format!("{value:?}"), "a number")),
            },
        }
    }

    /// A number that has to be there.
    pub fn number(&self, key: Key) -> Result<f64, ConfigError> {
        self.some_number(key)?.ok_or_else(|| ConfigError::Key(self.name(key)))
    }

    /// A flag of `config.json`; `default` where it is absent, and for GGUF files.
    pub fn flag(&self, json: &str, default: bool) -> Result<bool, ConfigError> {
        match self.json().map(|text| &text[json]) {
            None | Some(Json::Null) => Ok(default),
            Some(value) => {
                value.as_bool().ok_or_else(|| ConfigError::value(json, value.to_string(), "true or false"))
            }
        }
    }

    /// A text of `config.json`; `default` where it is absent, and for GGUF files.
    pub fn text(&self, json: &str, default: &'a str) -> Result<&'a str, ConfigError> {
        match self.json().map(|text| &text[json]) {
            None | Some(Json::Null) => Ok(default),
            Some(value) => {
                value.as_str().ok_or_else(|| ConfigError::value(json, value.to_string(), "a text"))
            }
        }
    }

    /// Refuses a checkpoint whose `config.json` asks for something that isn't computed.
    pub fn must_be_unset(&self, json: &str) -> Result<(), ConfigError> {
        match self.json().map(|text| &text[json]) {
            None | Some(Json::Null | Json::Bool(false)) => Ok(()),
            Some(value) => Err(ConfigError::value(json, value.to_string(), "models without it")),
        }
    }

    /// Rows of the embedding table.
    pub fn vocab(&self) -> Result<usize, ConfigError> {
        match self.source {
            Source::Json { .. } => self.count(Key { json: "vocab_size", gguf: "vocab_size" }),
            Source::Gguf(metadata) => {
                let tokens = metadata.texts("tokenizer.ggml.tokens").map(<[String]>::len);
                tokens.ok_or_else(|| ConfigError::Key("tokenizer.ggml.tokens".to_owned()))
            }
        }
    }

    /// Whether the output map is the table: a GGUF file says so by leaving the map out.
    pub fn tied(&self, default: bool) -> Result<bool, ConfigError> {
        match self.source {
            Source::Json { whole, text } => {
                let said = [text, whole].into_iter().find_map(|json| json["tie_word_embeddings"].as_bool());
                Ok(said.unwrap_or(default))
            }
            Source::Gguf(_) => Ok(!self.weights.contains("lm_head.weight")),
        }
    }

    /// The token that starts a text.
    pub fn bos(&self) -> Result<Option<u32>, ConfigError> {
        match self.source {
            Source::Json { whole, text } => Ok(ids("bos_token_id", text, whole)?.first().copied()),
            Source::Gguf(_) => Ok(self.gguf_ids(&["bos_token_id"])?.first().copied()),
        }
    }

    /// The tokens that end a text: `generation_config.json` is asked first, as transformers does.
    pub fn eos(&self) -> Result<Vec<u32>, ConfigError> {
        let (whole, text) = match self.source {
            Source::Json { whole, text } => (whole, text),
            // The end of a turn ends an answer too.
            Source::Gguf(_) => return self.gguf_ids(&["eos_token_id", "eot_token_id", "eom_token_id"]),
        };
        let path = self.weights.path().join("generation_config.json");
        let generation =
            std::fs::read(&path).ok().and_then(|file| serde_json::from_slice::<Json>(&file).ok());
        let said = generation.map(|json| ids("eos_token_id", &json, &Json::Null)).transpose()?;
        match said.filter(|ids| !ids.is_empty()) {
            Some(ids) => Ok(ids),
            None => ids("eos_token_id", text, whole),
        }
    }

    fn gguf_ids(&self, names: &[&str]) -> Result<Vec<u32>, ConfigError> {
        let Some(metadata) = self.gguf() else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        for name in names {
            let name = format!("tokenizer.ggml.{name}");
            let Some(value) = metadata.get(&name) else { continue };
            let id = match value {
                Value::Int(id) => u32::try_from(*id).ok(),
                _ => None,
            };
            let id = id.ok_or_else(|| ConfigError::value(&name, format!("{value:?}"), "a token id"))?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}

/// A number of a `config.json`, or nothing.
pub(super) fn number(value: &Json, name: &str) -> Result<Option<f64>, ConfigError> {
    match value {
        Json::Null => Ok(None),
        value => {
            let number = value.as_f64();
            number.map(Some).ok_or_else(|| ConfigError::value(name, value.to_string(), "a number"))
        }
    }
}

/// One id or a list of them under `key`, in the first of two objects that has it.
fn ids(key: &str, first: &Json, second: &Json) -> Result<Vec<u32>, ConfigError> {
    let value = if first[key].is_null() { &second[key] } else { &first[key] };
    let list = match value {
        Json::Null => return Ok(Vec::new()),
        Json::Array(list) => list.iter().collect(),
        one => vec![one],
    };
    let id = |id: &Json| id.as_u64().and_then(|id| u32::try_from(id).ok());
    list.into_iter()
        .map(|value| id(value).ok_or_else(|| ConfigError::value(key, value.to_string(), "token ids")))
        .collect()
}
