//! An adapter's files as one: the form in which the store keeps them and a download gives them.
//!
//! A zip archive of `adapter_config.json`, the weights and `card.toml`, in this order, stored as they are, without times: the
//! same files give the same bytes.

use std::io::{Cursor, Read, Write};

use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, result::ZipError, write::SimpleFileOptions};

use super::{
    card::MAX_CARD_BYTES,
    folder::{AdapterBytes, CARD_FILE, CONFIG_FILE, FolderError, LoadedAdapter, MAX_CONFIG_BYTES},
    tensor_file::{MAX_FILE_BYTES, WeightsFormat},
};

/// Why a bundle can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is not a zip archive.
    #[error("the bundle is damaged: {0}")]
    Zip(#[from] ZipError),
    /// It can't be read to its end.
    #[error("the bundle is damaged: {0}")]
    Io(#[from] std::io::Error),
    /// A file is missing.
    #[error("the bundle has no {0}")]
    Missing(&'static str),
    /// A file is longer than it may be.
    #[error("the bundle's {0} is longer than it may be")]
    TooLong(&'static str),
    /// The files are not a sound adapter.
    #[error(transparent)]
    Adapter(#[from] FolderError),
}

/// The bundle of an adapter's files.
///
/// # Panics
/// Never: an archive in memory takes what is written to it.
pub fn pack(files: &AdapterBytes) -> Vec<u8> {
    let weights = (files.format.file_name(), Some(&files.weights));
    let files = [(CONFIG_FILE, Some(&files.config)), weights, (CARD_FILE, files.card.as_ref())];
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    for (name, bytes) in files {
        let Some(bytes) = bytes else { continue };
        zip.start_file(name, options).expect("the names are short and differ");
        zip.write_all(bytes).expect("memory takes what is written to it");
    }
    zip.finish().expect("memory takes what is written to it").into_inner()
}

/// The files of a bundle.
///
/// # Errors
/// When it is not one.
pub fn unpack(bundle: &[u8]) -> Result<AdapterBytes, BundleError> {
    let mut zip = ZipArchive::new(Cursor::new(bundle))?;
    let config = file(&mut zip, CONFIG_FILE, MAX_CONFIG_BYTES)?.ok_or(BundleError::Missing(CONFIG_FILE))?;
    let card = file(&mut zip, CARD_FILE, MAX_CARD_BYTES as u64)?;
    for format in [WeightsFormat::Safetensors, WeightsFormat::TorchBin] {
        if let Some(weights) = file(&mut zip, format.file_name(), MAX_FILE_BYTES)? {
            return Ok(AdapterBytes { config, format, weights, card });
        }
    }
    Err(BundleError::Missing(WeightsFormat::Safetensors.file_name()))
}

/// The adapter in a bundle.
///
/// # Errors
/// When it is not one, or what is in it is not sound.
pub fn load(bundle: &[u8]) -> Result<LoadedAdapter, BundleError> {
    Ok(LoadedAdapter::from_bytes(unpack(bundle)?, None)?)
}

fn file(
    zip: &mut ZipArchive<Cursor<&[u8]>>,
    name: &'static str,
    limit: u64,
) -> Result<Option<Vec<u8>>, BundleError> {
    let file = match zip.by_name(name) {
        Err(ZipError::FileNotFound) => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::with_capacity(file.size().min(limit) as usize);
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(BundleError::TooLong(name)) } else { Ok(Some(bytes)) }
}
