//! What an archive holds, entry by entry.

use std::collections::BTreeMap;

use super::{ArchiveError, Limits, Part, name::EntryName};
use crate::adapter::{
    folder::{AdapterBytes, CARD_FILE, CONFIG_FILE},
    tensor_file::WeightsFormat,
};

/// The entries seen so far and the files taken from them.
pub(super) struct Contents {
    limits: Limits,
    entries: usize,
    /// Every name seen, by its lower case.
    names: BTreeMap<String, String>,
    /// The folder that all files are in, once a file or folder was seen.
    folder: Option<Option<String>>,
    files: BTreeMap<Part, Vec<u8>>,
    /// Bytes that the files may still have.
    left: u64,
}

impl Contents {
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            entries: 0,
            names: BTreeMap::new(),
            folder: None,
            files: BTreeMap::new(),
            left: limits.bytes,
        }
    }

    /// Notes a folder's entry.
    ///
    /// # Errors
    /// When it is not the one folder of the archive, or is named twice.
    pub fn folder(&mut self, raw_name: &[u8]) -> Result<(), ArchiveError> {
        let name = self.note(raw_name)?;
        match name.parts.as_slice() {
            [] => Ok(()),
            _ if name.is_ignored() => Ok(()),
            [folder] => self.place(&name, Some(folder)),
            _ => Err(ArchiveError::Scattered(name.to_string())),
        }
    }

    /// Notes a file's entry and says which part of the adapter it is; none when it is passed over.
    ///
    /// # Errors
    /// When it is not a plain file of an adapter, or out of place.
    pub fn file(&mut self, raw_name: &[u8]) -> Result<Option<Part>, ArchiveError> {
        let name = self.note(raw_name)?;
        if name.slash || name.parts.is_empty() {
            return Err(ArchiveError::Unknown(name.to_string() + "/"));
        }
        if name.is_ignored() {
            return Ok(None);
        }
        let Some((folder, file)) = name.split() else {
            return Err(ArchiveError::Scattered(name.to_string()));
        };
        let Some(part) = Part::of(file) else {
            let lower = file.to_ascii_lowercase();
            let is_archive = [".zip", ".tar", ".gz", ".tgz"].iter().any(|ending| lower.ends_with(ending));
            let refuse = if is_archive { ArchiveError::Nested } else { ArchiveError::Unknown };
            return Err(refuse(name.to_string()));
        };
        self.place(&name, folder)?;
        Ok(Some(part))
    }

    /// How many bytes `part` may have, what was taken before deducted.
    pub fn room(&self, part: Part) -> u64 {
        part.limit().min(self.left)
    }

    /// That a part needs more than its room.
    pub fn too_large(&self, part: Part) -> ArchiveError {
        let (what, limit) = if part.limit() <= self.left {
            (part.file_name(), part.limit())
        } else {
            ("the archive", self.limits.bytes)
        };
        ArchiveError::TooLarge { what: what.to_owned(), limit }
    }

    /// Keeps a file's bytes, at most [`room`](Self::room) of them.
    pub fn take(&mut self, part: Part, bytes: Vec<u8>) {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.files.insert(part, bytes);
    }

    /// The adapter's files.
    ///
    /// # Errors
    /// Names the file that is missing.
    pub fn into_files(mut self) -> Result<AdapterBytes, ArchiveError> {
        let config = self.files.remove(&Part::Config).ok_or(ArchiveError::Missing(CONFIG_FILE))?;
        let safetensors =
            self.files.remove(&Part::Safetensors).map(|bytes| (WeightsFormat::Safetensors, bytes));
        let bin = self.files.remove(&Part::TorchBin).map(|bytes| (WeightsFormat::TorchBin, bytes));
        let (format, weights) = safetensors
            .or(bin)
            .ok_or(ArchiveError::Missing("adapter_model.safetensors, and no adapter_model.bin either"))?;
        debug_assert!(self.files.keys().all(|part| part.file_name() == CARD_FILE));
        Ok(AdapterBytes { config, format, weights, card: self.files.remove(&Part::Card) })
    }

    /// Counts an entry and checks its name alone and against those before it.
    fn note(&mut self, raw_name: &[u8]) -> Result<EntryName, ArchiveError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(ArchiveError::Entries { found: self.entries, limit: self.limits.entries });
        }
        let name = EntryName::parse(raw_name)?;
        let text = name.to_string();
        match self.names.insert(text.to_lowercase(), text.clone()) {
            None => Ok(name),
            Some(before) if before == text => Err(ArchiveError::Duplicate(text)),
            Some(before) => Err(ArchiveError::CaseCollision(before, text)),
        }
    }

    /// Checks that everything is in the same place.
    fn place(&mut self, name: &EntryName, folder: Option<&str>) -> Result<(), ArchiveError> {
        match &self.folder {
            None => self.folder = Some(folder.map(str::to_owned)),
            Some(before) if before.as_deref() == folder => {}
            Some(_) => return Err(ArchiveError::Scattered(name.to_string())),
        }
        Ok(())
    }
}
