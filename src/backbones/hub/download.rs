use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hf_hub::api::sync::Metadata;
use indicatif::{ProgressBar, ProgressDrawTarget};

use super::{HubError, Session, failure, status};
use crate::backbones::digest::sha256_file;

impl Session<'_> {
    /// Downloads a file into the cache and checks it. A cut connection is taken up again for as long as each
    /// try brings new bytes.
    pub(super) fn download(&self, name: &str) -> Result<PathBuf, HubError> {
        let what = format!("{}/{name}", self.model.id());
        let listed = self.hub.api.metadata(&self.remote.url(name)).map_err(|e| failure(&what, &e))?;
        if !is_safe(listed.etag()) || !is_safe(listed.commit_hash()) {
            let reason = format!("ETag '{}', commit '{}'", listed.etag(), listed.commit_hash());
            return Err(HubError::Answer { what, reason });
        }
        let blob = self.hub.cache.repo(self.repo.clone()).blob_path(listed.etag());
        let partial = blob.with_extension("part");
        drop_overlong(&partial, listed.size())?;
        let mut had = size(&partial);
        let pointer = loop {
            let error = match self.remote.download_with_progress(name, self.bar()) {
                Ok(pointer) => break pointer,
                Err(error) => error,
            };
            let has = size(&partial);
            if status(&error).is_some() || has <= had {
                return Err(failure(&what, &error));
            }
            tracing::warn!(file = what, bytes = has, of = listed.size(), "the connection broke, going on");
            had = has;
        };
        check(&what, &listed, &pointer).inspect_err(|_| {
            let _ = fs::remove_file(&pointer);
            let _ = fs::remove_file(&blob);
        })?;
        Ok(pointer)
    }

    fn bar(&self) -> ProgressBar {
        let target =
            if self.hub.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        ProgressBar::with_draw_target(Some(0), target)
    }
}

/// Fit for a file's name: the hub's answer becomes part of a path.
fn is_safe(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// A partial file that is longer than the whole can't be gone on with.
fn drop_overlong(partial: &Path, whole: usize) -> Result<(), HubError> {
    if size(partial) <= whole as u64 {
        return Ok(());
    }
    fs::remove_file(partial).map_err(|source| cache(partial, source))
}

/// Holds what came against the listed size and, for large files, the SHA-256 that is their ETag.
fn check(what: &str, listed: &Metadata, path: &Path) -> Result<(), HubError> {
    let damaged = |kind, expected: &dyn ToString, found: &dyn ToString| HubError::Damaged {
        file: what.to_owned(),
        what: kind,
        expected: expected.to_string(),
        found: found.to_string(),
    };
    let found = size(path);
    if found != listed.size() as u64 {
        return Err(damaged("size", &listed.size(), &found));
    }
    let etag = listed.etag();
    // 64 digits are a SHA-256; small files carry git's 40-digit name instead.
    if etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        let found = sha256_file(path).map_err(|source| cache(path, source))?;
        if !found.eq_ignore_ascii_case(etag) {
            return Err(damaged("SHA-256", &etag, &found));
        }
    }
    Ok(())
}

fn cache(path: &Path, source: io::Error) -> HubError {
    HubError::Cache { path: path.to_owned(), source }
}
