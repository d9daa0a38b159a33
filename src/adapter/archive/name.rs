//! The names of entries: plain ones, at the top or in one folder.

use super::ArchiveError;

/// Most bytes of a name.
const MAX_NAME_BYTES: usize = 255;

/// What no name of a plain file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not text.
    #[error("is not UTF-8 text: rename it")]
    Utf8,
    /// Too long.
    #[error("has a name of more than {MAX_NAME_BYTES} bytes: rename it")]
    Long,
    /// Nothing, or nothing between two slashes.
    #[error("has an empty name, or an empty part in it: rename it")]
    Empty,
    /// Characters that no screen shows.
    #[error("has control characters in its name: rename it")]
    Control,
    /// A separator on one system and a letter on another.
    #[error("has a backslash in its name: separate folders with '/'")]
    Backslash,
    /// Begins with a slash or a drive.
    #[error("is an absolute path: pack the files relative to the adapter's folder")]
    Absolute,
    /// Leads out of the archive.
    #[error("leads out of the archive by '..': pack the files relative to the adapter's folder")]
    Parent,
}

/// A name in its parts, none of them empty, `.` or `..`; no parts at all for the top folder itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryName {
    /// The folders and, last, the file.
    pub parts: Vec<String>,
    /// Whether it ends like a folder's.
    pub slash: bool,
}

impl EntryName {
    /// Parses the raw bytes of a name. A leading `./`, as `tar -C folder .` writes it, says nothing and is dropped.
    ///
    /// # Errors
    /// Quotes the name and says what is wrong with it.
    pub fn parse(raw: &[u8]) -> Result<Self, ArchiveError> {
        parse(raw).map_err(|source| ArchiveError::Name { entry: show(raw), source })
    }

    /// The folder, when there is exactly one, and the file.
    pub fn split(&self) -> Option<(Option<&str>, &str)> {
        match self.parts.as_slice() {
            [file] => Some((None, file)),
            [folder, file] => Some((Some(folder), file)),
            _ => None,
        }
    }

    /// Whether it is of the kind that is passed over unread.
    pub fn is_ignored(&self) -> bool {
        let leftover = |part: &String| part.starts_with('.') || part == "__MACOSX";
        let about = |file: &String| {
            let stem = file.split('.').next().unwrap_or_default().to_ascii_lowercase();
            ["readme", "license", "licence", "notice"].contains(&stem.as_str())
        };
        self.parts.iter().any(leftover) || self.parts.last().is_some_and(about)
    }
}

impl std::fmt::Display for EntryName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parts.join("/"))
    }
}

fn parse(raw: &[u8]) -> Result<EntryName, NameError> {
    if raw.len() > MAX_NAME_BYTES {
        return Err(NameError::Long);
    }
    let name = std::str::from_utf8(raw).map_err(|_| NameError::Utf8)?;
    if name.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    if name.contains('\\') {
        return Err(NameError::Backslash);
    }
    let drive = matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    if name.starts_with('/') || drive {
        return Err(NameError::Absolute);
    }
    let slash = name.ends_with('/');
    let name = name.strip_suffix('/').unwrap_or(name);
    let mut parts: Vec<_> = name.split('/').map(str::to_owned).collect();
    if parts[0] == "." {
        parts.remove(0);
    }
    match parts.iter().map(String::as_str).find(|part| ["", ".", ".."].contains(part)) {
        Some("..") => Err(NameError::Parent),
        Some(_) => Err(NameError::Empty),
        None => Ok(EntryName { parts, slash }),
    }
}

/// A name that is safe to show and not too long.
fn show(raw: &[u8]) -> String {
    raw[..raw.len().min(80)].escape_ascii().to_string()
}
