//! Keys are random and are kept as their SHA-256: 160 bits drawn by the system cannot be guessed from a hash, so a
//! slow password hash would protect nothing and would cost every request. Keys that people think up are not taken.

use std::fmt;

use rand::{TryRng, rngs::SysRng};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What every key starts with, so that a leaked one is recognised, by people and by scanners.
const PREFIX: &str = "dept_";

/// Random bytes of a key.
const RANDOM: usize = 20;

/// Why a text is not a key or not the hash of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key has another form. What was sent is never repeated: it may be another service's key.
    #[error("the key is not one of this server: keys are '{PREFIX}' and {} hexadecimal digits", 2 * RANDOM)]
    Form,
    /// The hash has another form. It is not repeated either: it may be the key itself.
    #[error(
        "a hash is 'sha256:' and 64 hexadecimal digits, as `dept key new` prints: this is something else"
    )]
    Hash,
    /// The system gave no random numbers.
    #[error("the system gave no random numbers: {0}")]
    Random(String),
}

/// A key as a client sends it. It is shown only by [`ApiKey::reveal`].
pub struct ApiKey(String);

impl ApiKey {
    /// A fresh key.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = [0; RANDOM];
        SysRng.try_fill_bytes(&mut bytes).map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self(format!("{PREFIX}{}", hex(&bytes))))
    }

    /// Reads a key.
    ///
    /// # Errors
    /// When it has not the form of one.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let digits = text.strip_prefix(PREFIX).ok_or(KeyError::Form)?;
        from_hex::<RANDOM>(digits).map(|_| Self(text.to_owned())).ok_or(KeyError::Form)
    }

    /// The key itself, for its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Its hash.
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(&self.0).into())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// The SHA-256 of a key; prints as `sha256:…`. Compared in constant time.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyHash([u8; 32]);

impl ConstantTimeEq for KeyHash {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for KeyHash {}

impl TryFrom<String> for KeyHash {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        let bytes = text.strip_prefix("sha256:").and_then(from_hex::<32>);
        bytes.map(Self).ok_or(KeyError::Hash)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `2 N` lowercase hexadecimal digits.
fn from_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let legal = digits.len() == 2 * N && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = legal.then(|| u8::from_str_radix(&digits[at..at + 2], 16).ok())??;
    }
    Some(bytes)
}
