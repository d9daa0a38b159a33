//! The messages of an upload, read to the adapter's files.

use tonic::Streaming;

use super::{
    convert::unknown,
    proto::{
        UploadAdapterRequest,
        upload_adapter_request::{Chunk, File, Part as Message, Start},
    },
    status::error_of,
};
use crate::{
    adapter::folder::AdapterBytes,
    api::{
        ApiError,
        frame::off_the_loop,
        upload::{Part, Parts, too_large, unpack},
    },
};

/// An upload, whole.
pub(super) struct Upload {
    pub start: Start,
    pub files: AdapterBytes,
}

/// Reads an upload of at most `most` bytes.
///
/// # Errors
/// When it is too large, too slow, not in order, or a file is missing.
pub(super) async fn read(
    mut messages: Streaming<UploadAdapterRequest>,
    most: usize,
) -> Result<Upload, ApiError> {
    let start = match next(&mut messages).await? {
        Some(Message::Start(start)) => start,
        _ => return Err(ApiError::invalid("start", "the first message has no start: send the name first")),
    };
    let mut files = Files { most, taken: 0, parts: Parts::new(most), archive: None };
    while let Some(message) = next(&mut messages).await? {
        match message {
            Message::Chunk(chunk) => files.take(chunk)?,
            Message::Start(_) => {
                return Err(ApiError::invalid("start", "start is there twice: one upload is one adapter"));
            }
        }
    }
    Ok(Upload { start, files: files.finish().await? })
}

/// What the next message says; `None` at the end.
async fn next(messages: &mut Streaming<UploadAdapterRequest>) -> Result<Option<Message>, ApiError> {
    match messages.message().await.map_err(|status| error_of(&status))? {
        None => Ok(None),
        Some(UploadAdapterRequest { part: Some(part) }) => Ok(Some(part)),
        Some(UploadAdapterRequest { part: None }) => {
            Err(ApiError::invalid("part", "a message is empty: send a start, then chunks"))
        }
    }
}

/// What has come so far.
struct Files {
    most: usize,
    taken: usize,
    parts: Parts,
    archive: Option<Vec<u8>>,
}

impl Files {
    fn take(&mut self, chunk: Chunk) -> Result<(), ApiError> {
        let Chunk { file, data } = chunk;
        self.taken += data.len();
        if self.taken > self.most {
            return Err(too_large("the upload", self.most));
        }
        let part = match File::try_from(file) {
            Ok(File::Config) => Part::Config,
            Ok(File::Weights) => Part::Weights,
            Ok(File::Card) => Part::Card,
            Ok(File::Archive) => {
                self.archive.get_or_insert_default().extend_from_slice(&data);
                return Ok(());
            }
            Ok(File::Unspecified) => {
                return Err(ApiError::invalid("file", "file is missing: say which one the chunk is of"));
            }
            Err(_) => return Err(unknown("file", file)),
        };
        self.parts.extend(part, &data)
    }

    async fn finish(self) -> Result<AdapterBytes, ApiError> {
        let Self { most, parts, archive, .. } = self;
        match archive {
            None => parts.files(),
            Some(_) if !parts.is_empty() => {
                Err(ApiError::invalid("file", "an archive has all files: send it alone"))
            }
            Some(bytes) => off_the_loop(move || unpack(&bytes, most)).await,
        }
    }
}
