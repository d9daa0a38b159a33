//! An adapter's files in one archive, `.zip` or `.tar.gz`: what an upload sends and a download gets.
//!
//! Nothing is unpacked to disk. An archive holds `adapter_config.json`, `adapter_model.safetensors` or
//! `adapter_model.bin`, and maybe `card.toml`, all at its top or all in its one folder. Beside them it may hold what people
//! and programs leave in folders: README, LICENSE and NOTICE with any ending, names that begin with a dot, and
//! `__MACOSX`; these are passed over unread. Any other file is refused by its name. Where both weights files are there
//! the safetensors file counts, as in a folder.
//!
//! What comes out is bytes; [`LoadedAdapter::from_bytes`](super::LoadedAdapter::from_bytes) checks them as it does a folder's.

use std::{
    io::{Cursor, Read, Write},
    time::{Duration, Instant},
};

use ::zip::{CompressionMethod, DateTime, ZipWriter, result::ZipError, write::SimpleFileOptions};

use super::{
    card::MAX_CARD_BYTES,
    folder::{AdapterBytes, CARD_FILE, CONFIG_FILE, MAX_CONFIG_BYTES},
    tensor_file::{MAX_FILE_BYTES, WeightsFormat},
};
use contents::Contents;

mod contents;
mod name;
mod tar_gz;
mod zip;

pub use name::NameError;

/// The first bytes of a zip: the header of its first file. An empty zip begins otherwise and holds no adapter.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
/// The first bytes of gzip.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// What an archive may ask of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of its files together, unpacked.
    pub bytes: u64,
    /// Most entries, folders and ignored files among them.
    pub entries: usize,
    /// Longest that unpacking may take. The bytes bound it already, by fractions of a second: this is for the day when they don't.
    pub time: Duration,
}

impl Default for Limits {
    /// Room for the largest files that a folder may hold, and 64 entries.
    fn default() -> Self {
        Self {
            bytes: MAX_FILE_BYTES + MAX_CONFIG_BYTES + MAX_CARD_BYTES as u64,
            entries: 64,
            time: Duration::from_secs(10),
        }
    }
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Neither of the two formats.
    #[error("not an archive that is read: it starts with '{0}'; send a .zip or a .tar.gz")]
    Format(String),
    /// The zip is damaged, or uses what no adapter needs.
    #[error("the zip is damaged or not plain: {0}")]
    Zip(#[from] ZipError),
    /// The gzip or tar is damaged.
    #[error("the .tar.gz is damaged or cut short: {0}")]
    Tar(std::io::Error),
    /// Bytes that belong to no file.
    #[error("{0} bytes follow the end of the archive: send the archive alone")]
    Trailing(usize),
    /// More entries than an adapter has.
    #[error("the archive has {found} entries, at most {limit} are read: pack the adapter's files alone")]
    Entries {
        /// Entries found before giving up.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Unpacked it is too large.
    #[error("'{what}' has more than {limit} bytes unpacked, the most that is read")]
    TooLarge {
        /// The file, or the archive as a whole.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// It takes too long to unpack.
    #[error(
        "unpacking the archive took over {0:?}, the most that is given: pack the adapter's files anew, or send them in parts"
    )]
    Slow(Duration),
    /// A file's length is not what its header says, or its checksum is wrong.
    #[error("'{entry}' is damaged: {reason}")]
    Damaged {
        /// The file.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// A name that no plain file has.
    #[error("entry '{entry}' {source}")]
    Name {
        /// The name, escaped.
        entry: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// The same name twice.
    #[error("'{0}' is in the archive twice")]
    Duplicate(String),
    /// Two names that are one on file systems that do not tell case apart.
    #[error("'{0}' and '{1}' differ only by case: keep one of them")]
    CaseCollision(String, String),
    /// A link, device or pipe.
    #[error("'{entry}' is {kind}: put the file itself into the archive")]
    Kind {
        /// The entry.
        entry: String,
        /// What it is.
        kind: &'static str,
    },
    /// A file needs a password.
    #[error("'{0}' is encrypted: pack it without a password")]
    Encrypted(String),
    /// A file is packed in a way that is not read.
    #[error("'{entry}' is compressed by {method}: pack it with deflate or without compression")]
    Compression {
        /// The file.
        entry: String,
        /// The method.
        method: String,
    },
    /// Files in more than one folder, or a folder in a folder.
    #[error(
        "'{0}' is not beside the other files: pack all of them at the top of the archive or in one folder"
    )]
    Scattered(String),
    /// An archive where a file belongs.
    #[error("'{0}' is an archive in the archive: pack the adapter's files themselves")]
    Nested(String),
    /// A file that no adapter has.
    #[error(
        "'{0}' is no part of an adapter: pack adapter_config.json, adapter_model.safetensors (or .bin) and card.toml"
    )]
    Unknown(String),
    /// A needed file is not there.
    #[error("the archive has no {0}")]
    Missing(&'static str),
}

impl ArchiveError {
    /// Whether it is refused for its size or the work that it makes alone.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Entries { .. } | Self::Slow(_))
    }
}

/// The adapter's files in a `.zip` or `.tar.gz`, told apart by their first bytes.
///
/// # Errors
/// When it is neither, damaged, over a limit, or holds anything but one adapter's files.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<AdapterBytes, ArchiveError> {
    let clock = Clock::start(limits);
    let contents = if bytes.starts_with(ZIP_MAGIC) {
        zip::read(bytes, limits, clock)?
    } else if bytes.starts_with(GZIP_MAGIC) {
        tar_gz::read(bytes, limits, clock)?
    } else {
        return Err(ArchiveError::Format(bytes[..bytes.len().min(12)].escape_ascii().to_string()));
    };
    contents.into_files()
}

/// Tells when unpacking has taken too long.
#[derive(Debug, Clone, Copy)]
struct Clock {
    started: Instant,
    most: Duration,
}

impl Clock {
    fn start(limits: &Limits) -> Self {
        Self { started: Instant::now(), most: limits.time }
    }

    /// Everything of `reader`, whose own errors `damaged` says what to make of; looks at the clock between pieces.
    fn read(
        self,
        mut reader: impl Read,
        into: &mut Vec<u8>,
        damaged: impl Fn(std::io::Error) -> ArchiveError,
    ) -> Result<(), ArchiveError> {
        const PIECE: u64 = 1 << 20;
        loop {
            if self.started.elapsed() >= self.most {
                return Err(ArchiveError::Slow(self.most));
            }
            if reader.by_ref().take(PIECE).read_to_end(into).map_err(&damaged)? == 0 {
                return Ok(());
            }
        }
    }
}

/// Packs an adapter's files into a zip that [`read`] takes again. Stored as they are, in a fixed order and without times:
/// the same files give the same bytes.
///
/// # Panics
/// Never: an archive in memory takes what is written to it.
pub fn pack(files: &AdapterBytes) -> Vec<u8> {
    let weights = (files.format.file_name(), Some(&files.weights));
    let files = [(CONFIG_FILE, Some(&files.config)), weights, (CARD_FILE, files.card.as_ref())];
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::DEFAULT)
        .unix_permissions(0o644);
    for (name, bytes) in files {
        let Some(bytes) = bytes else { continue };
        zip.start_file(name, options).expect("the names are short and differ");
        zip.write_all(bytes).expect("memory takes what is written to it");
    }
    zip.finish().expect("memory takes what is written to it").into_inner()
}

/// The files of an adapter that an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Config,
    Safetensors,
    TorchBin,
    Card,
}

impl Part {
    const ALL: [Self; 4] = [Self::Config, Self::Safetensors, Self::TorchBin, Self::Card];

    fn of(file_name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.file_name() == file_name)
    }

    fn file_name(self) -> &'static str {
        match self {
            Self::Config => CONFIG_FILE,
            Self::Safetensors => WeightsFormat::Safetensors.file_name(),
            Self::TorchBin => WeightsFormat::TorchBin.file_name(),
            Self::Card => CARD_FILE,
        }
    }

    /// Most bytes of it, as in a folder.
    fn limit(self) -> u64 {
        match self {
            Self::Config => MAX_CONFIG_BYTES,
            Self::Safetensors | Self::TorchBin => MAX_FILE_BYTES,
            Self::Card => MAX_CARD_BYTES as u64,
        }
    }
}
