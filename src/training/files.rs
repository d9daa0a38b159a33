//! Files that are there whole or not at all.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use super::error::TrainError;

/// Writes a file beside its place, to the disk, and only then puts it there: what was there before stays whole until then,
/// and for good when the disk is full.
///
/// # Errors
/// Names the file and what the system said.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let temporary = beside(path);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let placed = written.and_then(|()| fs::rename(&temporary, path));
    placed.map_err(|source| {
        // What is left of it helps nobody; that it can't be taken away is no news beside the failure itself.
        let _ = fs::remove_file(&temporary);
        TrainError::Write { path: path.to_owned(), source }
    })
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}
