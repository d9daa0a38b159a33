//! Files out of a `.zip`.

use std::{
    collections::BTreeSet,
    io::{Cursor, Read},
    ops::Range,
};

use ::zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{ArchiveError, Clock, Contents, Limits, Part};

/// How the record that ends a zip begins.
const END_MAGIC: &[u8] = b"PK\x05\x06";
/// Bytes of that record, its comment aside.
const END_BYTES: usize = 22;
/// How an entry of the directory begins.
const ENTRY_MAGIC: &[u8] = b"PK\x01\x02";
/// Bytes of such an entry, its name, extra fields and comment aside.
const ENTRY_BYTES: usize = 46;
/// Deflate makes at most this many bytes of one.
const MAX_RATIO: usize = 1032;
/// The kinds of Unix files in the upper bits of a mode.
const KIND_MASK: u32 = 0o170_000;

type Zip<'a> = ZipArchive<Cursor<&'a [u8]>>;

pub(super) fn read(bytes: &[u8], limits: &Limits, clock: Clock) -> Result<Contents, ArchiveError> {
    check_directory(bytes, limits)?;
    let mut zip = ZipArchive::new(Cursor::new(bytes))?;
    // What a file's own header says against what the directory says, and that no two files share bytes.
    zip.validate_header_consistency()?;
    let mut contents = Contents::new(limits);
    let mut parts = Vec::new();
    for index in 0..zip.len() {
        if let Some(part) = note(&zip, index, &mut contents)? {
            parts.push((part, index));
        }
    }
    let preferred = parts.iter().any(|(part, _)| *part == Part::Safetensors);
    for (part, index) in parts {
        if part != Part::TorchBin || !preferred {
            let file = read_file(&mut zip, (index, part), &contents, clock)?;
            contents.take(part, file);
        }
    }
    Ok(contents)
}

/// Walks the directory before the reader does, which would hold all of it in memory and merges equal names.
fn check_directory(bytes: &[u8], limits: &Limits) -> Result<(), ArchiveError> {
    let (mut directory, entries) = directory(bytes)?;
    if entries > limits.entries {
        return Err(ArchiveError::Entries { found: entries, limit: limits.entries });
    }
    let mut names = BTreeSet::new();
    for _ in 0..entries {
        let entry = &bytes[directory.clone()];
        if !entry.starts_with(ENTRY_MAGIC) || entry.len() < ENTRY_BYTES {
            return Err(damaged("its directory is cut short"));
        }
        let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(entry, at)));
        let Some(raw) = entry.get(ENTRY_BYTES..ENTRY_BYTES + name) else {
            return Err(damaged("its directory is cut short"));
        };
        if !names.insert(raw) {
            return Err(ArchiveError::Duplicate(raw.escape_ascii().to_string()));
        }
        directory.start = (directory.start + ENTRY_BYTES + name + extra + comment).min(directory.end);
    }
    if directory.is_empty() {
        Ok(())
    } else {
        Err(damaged("its directory has more entries than its end says"))
    }
}

/// Where the directory lies, and its number of entries. It must reach up to the end record and that one to the end of the
/// file, so that every reader finds the same one.
fn directory(bytes: &[u8]) -> Result<(Range<usize>, usize), ArchiveError> {
    let from = bytes.len().saturating_sub(END_BYTES + usize::from(u16::MAX));
    let last = bytes[from..].windows(END_MAGIC.len()).rposition(|window| window == END_MAGIC);
    let end = from + last.ok_or_else(|| damaged("it has no end: was it cut short?"))?;
    let record = &bytes[end..];
    match record.len().checked_sub(END_BYTES) {
        None => return Err(damaged("it has no end: was it cut short?")),
        Some(0) => {}
        Some(more) => return Err(ArchiveError::Trailing(more)),
    }
    let [disk, first_disk, here, entries, comment] = [4, 6, 8, 10, 20].map(|at| u16_at(record, at));
    if disk != 0 || first_disk != 0 || here != entries || comment != 0 {
        return Err(damaged("it is one part of several, or its end is not what it says"));
    }
    let [size, start] = [12, 16].map(|at| u32_at(record, at) as usize);
    if start.checked_add(size) != Some(end) {
        return Err(damaged("its directory does not lie in front of its end (zip64 is not read)"));
    }
    Ok((start..end, usize::from(entries)))
}

/// Checks what the directory says of an entry; gives the part that it is.
fn note(zip: &Zip<'_>, index: usize, contents: &mut Contents) -> Result<Option<Part>, ArchiveError> {
    let entry = zip.by_index_data(index)?;
    let shown = || entry.name_raw().escape_ascii().to_string();
    let kind = match entry.unix_mode().unwrap_or_default() & KIND_MASK {
        0 | 0o100_000 => None,
        0o040_000 if entry.is_dir() => None,
        0o040_000 => Some("a folder by its mode and a file by its name"),
        0o120_000 => Some("a symbolic link"),
        _ => Some("a device, pipe or socket"),
    };
    if let Some(kind) = kind {
        return Err(ArchiveError::Kind { entry: shown(), kind });
    }
    if entry.encrypted() {
        return Err(ArchiveError::Encrypted(shown()));
    }
    if entry.is_dir() {
        return contents.folder(entry.name_raw()).map(|()| None);
    }
    let part = contents.file(entry.name_raw())?;
    match entry.compression() {
        CompressionMethod::Stored | CompressionMethod::Deflated => Ok(part),
        _ if part.is_none() => Ok(None),
        other => Err(ArchiveError::Compression { entry: shown(), method: other.to_string() }),
    }
}

fn read_file(
    zip: &mut Zip<'_>,
    (index, part): (usize, Part),
    contents: &Contents,
    clock: Clock,
) -> Result<Vec<u8>, ArchiveError> {
    let (entry, room) = (part.file_name(), contents.room(part));
    let mut file = zip.by_index(index)?;
    let size = file.size();
    if size > room {
        return Err(contents.too_large(part));
    }
    // The size may be a lie; what was sent bounds what can come of it.
    let likely = (file.compressed_size() as usize).saturating_mul(MAX_RATIO).min(size as usize);
    let mut bytes = Vec::with_capacity(likely);
    let damaged = |reason| ArchiveError::Damaged { entry: entry.to_owned(), reason };
    clock.read(file.by_ref().take(room + 1), &mut bytes, |error| damaged(error.to_string()))?;
    if bytes.len() as u64 > room {
        return Err(contents.too_large(part));
    }
    if bytes.len() as u64 != size {
        return Err(damaged(format!("it has {} bytes, its header says {size}", bytes.len())));
    }
    Ok(bytes)
}

fn damaged(what: &'static str) -> ArchiveError {
    ArchiveError::Zip(ZipError::InvalidArchive(what.into()))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
