use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    adapter::{catalogue::Found, residency::Residence},
    domain::{AdapterName, UtcTime},
};

/// One page of adapters, in the order of their names.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdapterList {
    /// The adapters.
    pub adapters: Vec<AdapterObject>,
    /// What to give as `after` for the next page; null on the last one.
    pub next: Option<String>,
}

/// An adapter.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdapterObject {
    /// Its name.
    #[schema(example = "sst2")]
    pub name: String,
    /// What it stands for, `name@version`; only of an alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<String>,
    /// `home`, the tenant's own, or `shared`, what all tenants see.
    #[schema(example = "shared")]
    pub namespace: &'static str,
    /// The content address of its current generation.
    #[schema(example = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub version: String,
    /// How it was trained.
    #[schema(example = "dept")]
    pub method: &'static str,
    /// Rows of its soft prompt, m.
    #[schema(example = 20)]
    pub prompt_length: usize,
    /// Rank of its low-rank pair, r; 0 without one.
    #[schema(example = 53)]
    pub rank: usize,
    /// Longest input in tokens, s; null where it sets no limit.
    #[schema(example = 256)]
    pub max_length: Option<usize>,
    /// Trained numbers.
    #[schema(example = 50944)]
    pub parameters: usize,
    /// Bytes in memory.
    #[schema(example = 203776)]
    pub bytes: usize,
    /// When it was made, RFC 3339 in UTC.
    #[schema(example = "2026-11-23T15:00:00Z")]
    pub created_at: String,
    /// Where it is held.
    #[schema(example = "host")]
    pub residency: &'static str,
    /// Whether it stays where it is held.
    pub pinned: bool,
    /// Its card: description, template, labels, measured results.
    #[schema(value_type = Object)]
    pub card: serde_json::Value,
}

impl AdapterObject {
    /// What `name` stands for.
    pub fn new(name: &AdapterName, found: &Found) -> Self {
        let version = &found.version;
        let alias = *name != found.name;
        Self {
            name: name.to_string(),
            alias_of: alias.then(|| format!("{}@{}", found.name, version.version)),
            namespace: if found.namespace.is_shared() { "shared" } else { "home" },
            version: version.version.to_string(),
            method: version.method.as_str(),
            prompt_length: version.prompt_length,
            rank: version.rank,
            max_length: version.max_length,
            parameters: version.parameters,
            bytes: version.bytes,
            created_at: rfc3339(UNIX_EPOCH + Duration::from_millis(version.created_ms)),
            residency: match found.resident {
                Residence::Device => "device",
                Residence::Host => "host",
                Residence::Store => "store",
            },
            pinned: found.pinned,
            card: version.card.clone(),
        }
    }
}

/// The versions of an adapter.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionList {
    /// The current one first.
    pub versions: Vec<AdapterObject>,
}

/// The body of `PATCH /v1/adapters/{name}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchAdapterBody {
    /// Whether its current version stays in memory.
    pub pinned: bool,
}

/// The body of `PUT /v1/aliases/{alias}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AliasBody {
    /// `name@version`; `name` alone is its current version, as of now.
    #[schema(
        example = "my-task@9f86d081884c",
        pattern = "^[a-z0-9][a-z0-9._-]{0,63}(@(sha256:)?[0-9a-f]{12,64})?$"
    )]
    pub target: String,
}

/// What an alias stands for.
#[derive(Debug, Serialize, ToSchema)]
pub struct AliasObject {
    /// The alias.
    #[schema(example = "production")]
    pub alias: String,
    /// `name@version`, the version whole.
    pub target: String,
}

/// The body of `POST /v1/load_lora_adapter`, as vLLM takes it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct LoadLoraBody {
    /// The adapter's name here.
    #[schema(example = "my-task", pattern = "^[a-z0-9][a-z0-9._-]{0,63}$")]
    pub lora_name: String,
    /// Its folder, from `--adapter-load-root` or whole and below that.
    #[schema(example = "teams/search/my-task", min_length = 1)]
    pub lora_path: String,
    /// Whether an adapter of the name may be replaced.
    #[serde(default)]
    pub load_inplace: bool,
}

/// The body of `POST /v1/unload_lora_adapter`, as vLLM takes it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UnloadLoraBody {
    /// The adapter's name.
    #[schema(example = "my-task", pattern = "^[a-z0-9][a-z0-9._-]{0,63}$")]
    pub lora_name: String,
}

/// `2026-11-23T15:00:00Z`; times before 1970 read as its start.
fn rfc3339(time: SystemTime) -> String {
    UtcTime::from(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_446_245, "2026-11-23T15:04:05Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
