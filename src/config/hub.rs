use std::{env, fmt, path::PathBuf};

/// The revision unless another is named.
const MAIN: &str = "main";

/// A model's name on the hub: `org/name`, with a revision as `org/name@revision`, or one GGUF file of it as
/// `org/name/file.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    id: String,
    revision: String,
    gguf: Option<String>,
}

impl HubModel {
    /// `None` where the text isn't such a name.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let mut parts = text.splitn(3, '/');
        let (organisation, name) = (parts.next()?, parts.next()?);
        let gguf = parts.next();
        let legal = is_word(organisation)
            && is_word(name)
            && revision.split('/').all(is_word)
            && gguf.is_none_or(|file| file.ends_with(".gguf") && file.split('/').all(is_word));
        legal.then(|| Self {
            id: format!("{organisation}/{name}"),
            revision: revision.to_owned(),
            gguf: gguf.map(str::to_owned),
        })
    }

    /// `org/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The GGUF file, where one is named.
    pub fn gguf(&self) -> Option<&str> {
        self.gguf.as_deref()
    }

    /// The file's stem, else the name without the organisation.
    pub(crate) fn default_name(&self) -> &str {
        let whole = self.gguf.as_deref().unwrap_or(&self.id);
        let last = whole.rsplit('/').next().unwrap_or(whole);
        last.strip_suffix(".gguf").unwrap_or(last)
    }
}

/// Letters, digits, `-`, `_`, `.`, not starting with a dot: safe in a path and in an address.
fn is_word(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(legal)
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if let Some(gguf) = &self.gguf {
            write!(f, "/{gguf}")?;
        }
        if self.revision != MAIN {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

/// How to reach the hub. The defaults are the public hub, no token, and the cache in the home folder.
#[derive(Debug, Clone, Default)]
pub struct HubSettings {
    /// The hub's address (`HF_ENDPOINT`).
    pub endpoint: Option<String>,
    /// A token for private and gated models (`HF_TOKEN`); else the one that the hub's own tool has stored.
    pub token: Option<String>,
    /// The cache's home (`HF_HOME`); files go to `hub/` in it.
    pub home: Option<PathBuf>,
    /// Draw a progress bar on standard error.
    pub progress: bool,
}

impl HubSettings {
    /// What the variables of the hub's own tools say, with a progress bar.
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    pub fn from_environment() -> Self {
        let text = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            endpoint: text("HF_ENDPOINT"),
            token: text("HF_TOKEN"),
            home: env::var_os("HF_HOME").map(PathBuf::from),
            progress: true,
        }
    }
}
