//! Whose names are whose.

use std::{fmt, str::FromStr, sync::Arc};

use super::{NameError, TenantId, Version};

/// What all tenants see.
const SHARED: &str = "shared";

/// Where adapters' names belong: a tenant's home, or `shared`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// What all tenants see.
    pub fn shared() -> Self {
        Self(SHARED.into())
    }

    /// A tenant's own.
    pub fn home(tenant: &TenantId) -> Self {
        Self(tenant.as_str().into())
    }

    /// Whether it is what all tenants see.
    pub fn is_shared(&self) -> bool {
        &*self.0 == SHARED
    }

    /// The namespace as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == SHARED {
            return Ok(Self::shared());
        }
        text.parse::<TenantId>().map(|tenant| Self::home(&tenant))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All 64 digits, with or without `sha256:`.
impl FromStr for Version {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Version(text.to_owned());
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(wrong());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).map(|digit| digit as u8);
            *byte = digit(0).zip(digit(1)).map(|(high, low)| high << 4 | low).ok_or_else(wrong)?;
        }
        Ok(Self::from_digest(digest))
    }
}

/// Names and versions in JSON: as they print.
pub mod text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes the text.
    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// Reads the text.
    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}
