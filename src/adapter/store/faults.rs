//! What keeps a store from its work. An operation that fails for a reason of the store's own is noted until one of its kind
//! works again; what went wrong is tried anew as long as that lasts.

use std::{
    error::Error,
    io::ErrorKind,
    sync::{Mutex, PoisonError},
};

use object_store::{Error as ObjectError, ObjectStoreExt, path::Path};

use super::{Store, StoreError};
use crate::telemetry::{StoreFault, StoreWork};

/// Most bytes that are written to see whether writing works again.
const MAX_PROBE: usize = 1 << 20;

/// What failed last, to be tried again.
#[derive(Debug, Default)]
pub(super) struct Failed {
    read: Mutex<Option<Path>>,
    written: Mutex<usize>,
}

/// The reason that lies with the store; `None` where the error is an answer.
fn fault(error: &ObjectError) -> Option<StoreFault> {
    match error {
        ObjectError::NotFound { .. }
        | ObjectError::AlreadyExists { .. }
        | ObjectError::Precondition { .. }
        | ObjectError::NotModified { .. } => None,
        ObjectError::PermissionDenied { .. } | ObjectError::Unauthenticated { .. } => {
            Some(StoreFault::Denied)
        }
        error => Some(fault_of(error)),
    }
}

/// The same of an error of any kind. What buckets say of a key that is over is only in their text, under status 400.
pub(super) fn fault_of(error: &(dyn Error + 'static)) -> StoreFault {
    const DENIED: [&str; 4] = ["ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"];
    const FULL: [&str; 2] = ["StorageFull", "507 Insufficient Storage"];
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    let of_system = causes.find_map(|error| error.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match of_system {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => StoreFault::Full,
        Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => StoreFault::Denied,
        _ if says(&FULL) => StoreFault::Full,
        _ if says(&DENIED) => StoreFault::Denied,
        _ => StoreFault::Unreachable,
    }
}

impl StoreError {
    /// The reason that lies with the store, where it is its fault.
    pub fn fault(&self) -> Option<StoreFault> {
        match self {
            Self::Io(error) => fault(error),
            Self::Lock(error) => Some(fault_of(error)),
            Self::Down(fault) => Some(*fault),
            Self::Lost(_) | Self::Full { .. } | Self::Damaged { .. } => None,
        }
    }
}

impl Store {
    /// Notes how the store did some work; the log is told when that changes.
    pub(super) fn noted<T>(&self, work: StoreWork, done: Result<T, ObjectError>) -> Result<T, ObjectError> {
        match done.as_ref().err().and_then(|error| Some((fault(error)?, error))) {
            Some((fault, error)) => self.note_fault(work, fault, error),
            None => self.note_success(work),
        }
        done
    }

    /// The same of something that was read from `path`.
    pub(super) fn read_from<T>(&self, path: &Path, done: Result<T, ObjectError>) -> Result<T, ObjectError> {
        if done.as_ref().is_err_and(|error| fault(error).is_some()) {
            *self.failed.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.clone());
        }
        self.noted(StoreWork::Read, done)
    }

    /// The same of so many bytes that were written.
    pub(super) fn wrote<T>(&self, bytes: usize, done: Result<T, ObjectError>) -> Result<T, ObjectError> {
        if done.as_ref().is_err_and(|error| fault(error).is_some()) {
            *self.failed.written.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
        }
        self.noted(StoreWork::Write, done)
    }

    pub(super) fn note_fault(&self, work: StoreWork, fault: StoreFault, error: &dyn Error) {
        if self.faults.fails(work, fault) {
            tracing::warn!(
                operation = work.as_str(), reason = fault.as_str(), %error,
                "the adapter store fails: what is in memory is served on"
            );
        }
    }

    fn note_success(&self, work: StoreWork) {
        if self.faults.works(work) {
            tracing::info!(operation = work.as_str(), "the adapter store works again");
        }
    }

    /// Whether it is known that the store as a whole does not answer now: it can't be listed. Requests need not find that out
    /// anew, one timeout each. A read that failed says nothing of other objects, which may be sound.
    ///
    /// # Errors
    /// [`StoreError::Down`].
    pub fn check_up(&self) -> Result<(), StoreError> {
        match self.faults.of(StoreWork::List) {
            Some(fault) => Err(StoreError::Down(fault)),
            None => Ok(()),
        }
    }

    /// Tries again what failed: reading the same object, writing as much. Lists are for who needs one.
    pub async fn probe(&self) {
        if self.faults.of(StoreWork::Read).is_some() {
            let path = self.failed.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(path) = path {
                // How it went is noted; its bytes are nobody's.
                let _ = self.read_from(&path, self.objects.get(&path).await);
            }
        }
        if self.faults.of(StoreWork::Write).is_some() {
            let bytes = *self.failed.written.lock().unwrap_or_else(PoisonError::into_inner);
            let path = self.root.clone().join("probe");
            let tried = self.objects.put(&path, vec![0; bytes.min(MAX_PROBE)].into()).await;
            if self.wrote(bytes, tried).is_ok() {
                // One that stays is overwritten by the next.
                let _ = self.objects.delete(&path).await;
            }
        }
    }
}
