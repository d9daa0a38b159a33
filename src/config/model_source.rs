use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::hub::HubModel;

/// Why `--model` doesn't name a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A file, but not a GGUF file.
    #[error(
        "'{}' is a file, but not a .gguf file: give the model's folder, a .gguf file, or a hub name like org/name",
        .0.display()
    )]
    NotAModelFile(PathBuf),
    /// Neither here nor a hub name.
    #[error(
        "there is no folder or .gguf file '{0}', and it isn't a hub name (org/name, org/name@revision or \
         org/name/file.gguf)"
    )]
    Missing(String),
}

/// Where a model comes from: what `--model PATH|HUB_ID` means. What exists on disk wins over the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A model on the hub.
    Hub(HubModel),
}

impl ModelSource {
    /// The last part of the path or id, without `.gguf`: what the model is called unless told otherwise.
    pub fn default_name(&self) -> String {
        match self {
            Self::Folder(path) | Self::Gguf(path) => {
                let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
                let name = if whole.extension().is_some_and(|e| e == "gguf") {
                    whole.file_stem()
                } else {
                    whole.file_name()
                };
                name.map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
            }
            Self::Hub(model) => model.default_name().to_owned(),
        }
    }
}

impl FromStr for ModelSource {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        if path.exists() {
            let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
            return match is_gguf {
                true => Ok(Self::Gguf(path.to_owned())),
                false => Err(SourceError::NotAModelFile(path.to_owned())),
            };
        }
        // A first part that is a folder here makes it a mistyped path.
        let mistyped = text.split('/').next().is_some_and(|first| Path::new(first).is_dir());
        let hub = if mistyped { None } else { HubModel::parse(text) };
        hub.map(Self::Hub).ok_or_else(|| SourceError::Missing(text.to_owned()))
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) | Self::Gguf(path) => path.display().fmt(f),
            Self::Hub(model) => model.fmt(f),
        }
    }
}
