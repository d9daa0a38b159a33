//! Files out of a `.tar.gz`.

use std::io::Read;

use flate2::bufread::GzDecoder;
use tar::{Archive, Entry, EntryType};

use super::{ArchiveError, Clock, Contents, Limits, Part};

/// Bytes that tar adds to an entry at most: its header, an extended header of two blocks with its own, and padding.
const ENTRY_BYTES: u64 = 4096;
/// Bytes of zeros that may end a tar: one record of the usual size, and the two blocks that are the end.
const END_BYTES: u64 = 10_240 + 1024;

pub(super) fn read(bytes: &[u8], limits: &Limits, clock: Clock) -> Result<Contents, ArchiveError> {
    let tar = unpack(bytes, limits, clock)?;
    let mut archive = Archive::new(tar.as_slice());
    let mut contents = Contents::new(limits);
    for entry in archive.entries().map_err(ArchiveError::Tar)? {
        read_entry(entry.map_err(ArchiveError::Tar)?, &mut contents)?;
    }
    let rest = archive.into_inner();
    match rest.iter().position(|&byte| byte != 0) {
        None => Ok(contents),
        Some(at) => Err(ArchiveError::Trailing(rest.len() - at)),
    }
}

/// The tar in the gzip, which must be one whole stream and nothing behind it.
fn unpack(bytes: &[u8], limits: &Limits, clock: Clock) -> Result<Vec<u8>, ArchiveError> {
    let most = limits.bytes + limits.entries as u64 * ENTRY_BYTES + END_BYTES;
    let mut decoder = GzDecoder::new(bytes);
    let mut tar = Vec::new();
    clock.read(decoder.by_ref().take(most + 1), &mut tar, ArchiveError::Tar)?;
    if tar.len() as u64 > most {
        return Err(ArchiveError::TooLarge { what: "the archive".into(), limit: limits.bytes });
    }
    match decoder.into_inner().len() {
        0 => Ok(tar),
        more => Err(ArchiveError::Trailing(more)),
    }
}

fn read_entry(mut entry: Entry<'_, &[u8]>, contents: &mut Contents) -> Result<(), ArchiveError> {
    let name = entry.path_bytes().into_owned();
    let shown = || name.escape_ascii().to_string();
    let kind = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => None,
        EntryType::Directory => return contents.folder(&name),
        // What git writes ahead of its files: the commit.
        EntryType::XGlobalHeader => return Ok(()),
        EntryType::Symlink => Some("a symbolic link"),
        EntryType::Link => Some("a hard link"),
        EntryType::GNUSparse => Some("a sparse file"),
        _ => Some("a device, pipe or something stranger"),
    };
    let kind = if is_sparse(&mut entry)? { Some("a sparse file") } else { kind };
    if let Some(kind) = kind {
        return Err(ArchiveError::Kind { entry: shown(), kind });
    }
    let Some(part) = contents.file(&name)? else { return Ok(()) };
    let file = read_file(&mut entry, part, contents)?;
    contents.take(part, file);
    Ok(())
}

/// Whether an extended header says that the data is a map of holes, as GNU tar writes it. A damaged one is an error.
fn is_sparse(entry: &mut Entry<'_, &[u8]>) -> Result<bool, ArchiveError> {
    let Some(extensions) = entry.pax_extensions().map_err(ArchiveError::Tar)? else { return Ok(false) };
    for extension in extensions {
        if extension.map_err(ArchiveError::Tar)?.key_bytes().starts_with(b"GNU.sparse") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read_file(entry: &mut Entry<'_, &[u8]>, part: Part, contents: &Contents) -> Result<Vec<u8>, ArchiveError> {
    let (size, room) = (entry.size(), contents.room(part));
    if size > room {
        return Err(contents.too_large(part));
    }
    let mut bytes = Vec::new();
    entry.take(room + 1).read_to_end(&mut bytes).map_err(ArchiveError::Tar)?;
    if bytes.len() as u64 != size {
        let reason = format!("it has {} bytes, its header says {size}", bytes.len());
        return Err(ArchiveError::Damaged { entry: part.file_name().to_owned(), reason });
    }
    Ok(bytes)
}
