use std::fmt;

use serde::Deserialize;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Scope {
    /// Generate, and look at tokens.
    #[serde(rename = "generate")]
    Generate,
    /// See adapters.
    #[serde(rename = "adapters:read")]
    AdaptersRead,
    /// Upload, change and delete the tenant's own adapters.
    #[serde(rename = "adapters:write")]
    AdaptersWrite,
    /// Change what all tenants share, and read the server's metrics.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Generate, Self::AdaptersRead, Self::AdaptersWrite, Self::Admin];

    /// The word in the key file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::AdaptersRead => "adapters:read",
            Self::AdaptersWrite => "adapters:write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes. None implies another.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub const EVERY: Self = Self(0b1111);

    /// Whether `scope` is among them.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u8 != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u8))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Scope::ALL.into_iter().filter(|&scope| self.contains(scope))).finish()
    }
}
