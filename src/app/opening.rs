//! From a loaded model to a server that is ready: what it waits for, and what it says then.

use std::{net::SocketAddr, path::Path, time::Instant};

use super::{AppError, Resident};
use crate::{api::State, config::ServeConfig};

/// Where the server really listens.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(super) struct Addresses {
    pub http: SocketAddr,
    /// Null where there is no such door.
    pub grpc: Option<SocketAddr>,
    pub admin: SocketAddr,
}

impl Addresses {
    /// Writes them as JSON, whole or not at all: who waits for the file must not read half of it.
    fn write(&self, file: Option<&Path>) -> Result<(), AppError> {
        let Some(path) = file else { return Ok(()) };
        let failed = |source| AppError::PortFile { path: path.to_owned(), source };
        let json = serde_json::to_string(self).map_err(|error| failed(error.into()))?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        std::fs::write(&temporary, json + "\n").map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(failed)
    }
}

/// A server whose doors are about to open.
pub(super) struct Opening<'a> {
    pub config: &'a ServeConfig,
    pub addresses: Addresses,
    pub resident: &'a Resident,
    /// When the process began to get ready.
    pub began: Instant,
}

impl Opening<'_> {
    /// Makes the server ready, unless pinned adapters are to be waited for. Whether they are.
    ///
    /// # Errors
    /// When the port file can't be written.
    pub fn begin(&self) -> Result<bool, AppError> {
        let waits = self.config.wait_for_pinned && self.resident.service.catalogue.lacks_pinned();
        if waits {
            self.resident.readiness().set(State::Pinning);
            tracing::warn!(
                http = %self.addresses.http,
                grpc = ?self.addresses.grpc,
                admin = %self.addresses.admin,
                "not ready yet: requests are served, and --wait-for-pinned waits for the pinned adapters"
            );
        } else {
            self.open()?;
        }
        Ok(waits)
    }

    /// Follows the adapters for as long as it is polled, and makes a server that `waits` ready once they are there.
    ///
    /// # Errors
    /// When the port file can't be written.
    pub async fn keep_up(&self, waits: bool) -> Result<(), AppError> {
        let catalogue = self.resident.service.catalogue.clone();
        if waits {
            catalogue.hold_pinned().await;
            self.open()?;
        }
        catalogue.watch().await;
        Ok(())
    }

    /// Says that the server is ready, unless it was told to end meanwhile.
    fn open(&self) -> Result<(), AppError> {
        if self.resident.readiness().open() {
            self.addresses.write(self.config.port_file.as_deref())?;
            self.announce();
        }
        Ok(())
    }

    fn announce(&self) {
        if self.config.log_texts {
            tracing::warn!(
                "prompts and answers of all tenants are logged, as info of dept::texts (--log-texts)"
            );
        }
        tracing::info!(
            model = self.resident.model().name,
            adapters = self.resident.service.catalogue.len(),
            threads = self.config.engine.threads,
            grpc = self.addresses.grpc.map_or("off".to_owned(), |address| address.to_string()),
            admin = %self.addresses.admin,
            took_ms = self.began.elapsed().as_millis() as u64,
            keys = self.config.api_keys.is_some(),
            "ready: POST {}://{}/v1/generate",
            if self.config.tls.is_some() { "https" } else { "http" },
            self.addresses.http
        );
    }
}
