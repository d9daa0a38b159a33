use serde::{Deserialize, Serialize};

use super::{MAX_POINTER_BYTES, StoreError};
use crate::{
    adapter::manifest::{Method, Task},
    domain::{AdapterName, Version, namespace::text},
};

/// Versions of an adapter that are kept, the current one counted.
pub const KEPT_VERSIONS: usize = 10;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pointer {
    format: u32,
    /// What it stands for.
    #[serde(flatten)]
    pub entry: Entry,
}

/// The kinds of name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Entry {
    /// An adapter.
    Adapter {
        /// Its versions, the current one last. Never empty.
        versions: Vec<StoredVersion>,
        /// Whether it stays in memory.
        pinned: bool,
    },
    /// Another name for a version of an adapter in the same namespace, or in the shared one.
    Alias {
        /// The adapter.
        #[serde(with = "text")]
        name: AdapterName,
        /// The version.
        #[serde(with = "text")]
        version: Version,
    },
    /// Nothing any more.
    Deleted,
}

/// A version of an adapter: what lists show of it, and where its files are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredVersion {
    /// Its content address.
    #[serde(with = "text")]
    pub version: Version,
    /// The blob with its files.
    pub blob: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// How it was trained.
    pub method: Method,
    /// The kind of model that it is for.
    pub task: Task,
    /// Rows of its soft prompt, m.
    pub prompt_length: usize,
    /// Rank of its update, r.
    pub rank: usize,
    /// Longest input in tokens, s.
    pub max_length: Option<usize>,
    /// Width d.
    pub hidden: usize,
    /// Trained numbers.
    pub parameters: usize,
    /// Bytes in memory.
    pub bytes: usize,
    /// Its card.
    pub card: serde_json::Value,
}

impl Pointer {
    /// Points to `entry`.
    pub fn new(entry: Entry) -> Self {
        Self { format: 1, entry }
    }

    /// Points to nothing.
    pub fn deleted() -> Self {
        Self::new(Entry::Deleted)
    }

    /// From JSON; says what is wrong with it.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let pointer: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if pointer.format != 1 {
            return Err(format!(
                "its format is {}, and this server knows 1: it was written by a newer one",
                pointer.format
            ));
        }
        if let Entry::Adapter { versions, .. } = &pointer.entry
            && versions.is_empty()
        {
            return Err("it has no versions".to_owned());
        }
        Ok(pointer)
    }

    /// The pointer as it is stored, if it is not too large for that; `name` is whose it is.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn check_size(&self, name: &AdapterName) -> Result<Vec<u8>, StoreError> {
        let json =
            serde_json::to_vec_pretty(self).expect("a pointer is strings, finite numbers and lists of them");
        let bytes = json.len() as u64;
        if bytes <= MAX_POINTER_BYTES {
            Ok(json)
        } else {
            Err(StoreError::Full { name: name.clone(), bytes })
        }
    }

    /// The versions of an adapter, the current one last.
    pub fn versions(&self) -> &[StoredVersion] {
        match &self.entry {
            Entry::Adapter { versions, .. } => versions,
            Entry::Alias { .. } | Entry::Deleted => &[],
        }
    }
}
