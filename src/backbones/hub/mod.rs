//! Models from the hub, through the cache that its other tools share.

mod download;

use std::{collections::BTreeSet, path::PathBuf};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiError, ApiRepo},
};

use super::weights::{self, WeightsError};
use crate::config::{HubModel, HubSettings};

#[cfg(test)]
mod tests;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
/// Fetched where the model has them.
const OPTIONAL: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json"];

/// Why a model can't be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// 401 or 403.
    #[error(
        "the hub refused '{model}' (HTTP {status}): it is private or gated, or its name is wrong. Check the name, and \
         set HF_TOKEN to a token that may read it"
    )]
    Refused {
        /// The model asked for.
        model: String,
        /// The HTTP status.
        status: u16,
    },
    /// 404.
    #[error(
        "'{model}' isn't on the hub (HTTP 404), and there is no such folder here either: check the name and the revision"
    )]
    NotFound {
        /// The model, or the file in it.
        model: String,
    },
    /// The model is there, a file that it needs isn't.
    #[error(
        "'{model}' has no {file}: this server reads safetensors with config.json and tokenizer.json, or a named .gguf file"
    )]
    NoFile {
        /// The model asked for.
        model: String,
        /// What it lacks.
        file: String,
    },
    /// Another HTTP status or a failed connection.
    #[error("fetching '{what}' failed: {reason}. What came so far is kept: run again to go on")]
    Transfer {
        /// The model or file.
        what: String,
        /// What went wrong.
        reason: String,
    },
    /// The bytes that came aren't the bytes that the hub lists.
    #[error(
        "'{file}' came with the wrong {what} (expected {expected}, found {found}); it is removed, run again"
    )]
    Damaged {
        /// The file.
        file: String,
        /// "SHA-256" or "size".
        what: &'static str,
        /// What the hub says.
        expected: String,
        /// What came.
        found: String,
    },
    /// The hub's answer can't be used.
    #[error("the hub's answer for '{what}' can't be used: {reason}")]
    Answer {
        /// The model or file.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A local file can't be written or read.
    #[error("can't use the cache file '{}': {source}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No place for the cache.
    #[error("no home folder is known for the hub's cache: set HF_HOME")]
    NoHome,
    /// The shard index is broken.
    #[error(transparent)]
    Index(#[from] WeightsError),
}

/// The hub and its local cache. Blocking: call it outside the async runtime.
#[derive(Debug)]
pub struct Hub {
    api: Api,
    cache: Cache,
    progress: bool,
}

impl Hub {
    /// Prepares a client; nothing is fetched yet.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let user = || std::env::home_dir().map(|user| user.join(".cache/huggingface"));
        let home = settings.home.or_else(user).ok_or(HubError::NoHome)?;
        let cache = Cache::new(home.join("hub"));
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_progress(settings.progress);
        if let Some(endpoint) = settings.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        if settings.token.is_some() {
            builder = builder.with_token(settings.token);
        }
        let api = builder.build().map_err(|e| failure("the hub", &e))?;
        Ok(Self { api, cache, progress: settings.progress })
    }

    /// The local folder (or GGUF file) of a model. Files that the cache holds aren't asked for again; a
    /// partial download goes on where it stopped; files with a SHA-256 on the hub are checked against it.
    pub fn fetch(&self, model: &HubModel) -> Result<PathBuf, HubError> {
        let repo = Repo::with_revision(model.id().to_owned(), RepoType::Model, model.revision().to_owned());
        if let Some(path) = self.cached(model, &repo) {
            return Ok(path);
        }
        let remote = self.api.repo(repo.clone());
        let listing = remote.info().map_err(|e| failure(&model.to_string(), &e))?;
        let listing: BTreeSet<String> = listing.siblings.into_iter().map(|file| file.rfilename).collect();
        let session = Session { hub: self, model, repo: &repo, remote: &remote };
        if let Some(gguf) = model.gguf() {
            require(model, gguf, &listing)?;
            return session.get(gguf);
        }
        require(model, TOKENIZER, &listing)?;
        require(model, CONFIG, &listing)?;
        for name in [CONFIG, TOKENIZER].into_iter().chain(OPTIONAL).filter(|name| listing.contains(*name)) {
            session.get(name)?;
        }
        session.get_weights(&listing)?;
        self.cached(model, &repo).ok_or_else(|| HubError::Answer {
            what: model.to_string(),
            reason: "its files changed while they were fetched; run again".into(),
        })
    }

    /// The model where everything it needs is in the cache already.
    fn cached(&self, model: &HubModel, repo: &Repo) -> Option<PathBuf> {
        let local = self.cache.repo(repo.clone());
        if let Some(gguf) = model.gguf() {
            return local.get(gguf);
        }
        let folder = local.get(CONFIG)?.parent()?.to_owned();
        let has = |name: &str| folder.join(name).is_file();
        let weights = has(weights::SINGLE)
            || weights::shard_names(&folder.join(weights::INDEX))
                .is_ok_and(|shards| shards.iter().all(|shard| has(shard)));
        (has(TOKENIZER) && weights).then_some(folder)
    }
}

/// One model's download.
struct Session<'a> {
    hub: &'a Hub,
    model: &'a HubModel,
    repo: &'a Repo,
    remote: &'a ApiRepo,
}

impl Session<'_> {
    /// A file from the cache, else from the hub.
    fn get(&self, name: &str) -> Result<PathBuf, HubError> {
        match self.hub.cache.repo(self.repo.clone()).get(name) {
            Some(path) => Ok(path),
            None => self.download(name),
        }
    }

    fn get_weights(&self, listing: &BTreeSet<String>) -> Result<(), HubError> {
        if listing.contains(weights::SINGLE) {
            return self.get(weights::SINGLE).map(drop);
        }
        if !listing.contains(weights::INDEX) {
            return require(self.model, weights::SINGLE, listing);
        }
        let index = self.get(weights::INDEX)?;
        for shard in weights::plain_shard_names(&index)? {
            require(self.model, &shard, listing)?;
            self.get(&shard)?;
        }
        Ok(())
    }
}

fn require(model: &HubModel, file: &str, listing: &BTreeSet<String>) -> Result<(), HubError> {
    match listing.contains(file) {
        true => Ok(()),
        false => Err(HubError::NoFile { model: model.to_string(), file: file.to_owned() }),
    }
}

/// The HTTP status of a failed call, where an answer came at all.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        // The client's own error type isn't ours to name; its text is "http status: 404".
        ApiError::RequestError(inner) => inner.to_string().strip_prefix("http status: ")?.parse().ok(),
        _ => None,
    }
}

fn failure(what: &str, error: &ApiError) -> HubError {
    match status(error) {
        Some(status @ (401 | 403)) => HubError::Refused { model: what.to_owned(), status },
        Some(404) => HubError::NotFound { model: what.to_owned() },
        _ => HubError::Transfer { what: what.to_owned(), reason: error.to_string() },
    }
}
