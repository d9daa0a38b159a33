//! TLS by rustls: HTTP/2 and HTTP/1.1, with a certificate that can be exchanged while the server runs.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use crate::config::TlsFiles;

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read as PEM.
    #[error("can't read {flag} '{}': {cause}", path.display())]
    Pem {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: rustls::pki_types::pem::Error,
    },
    /// There is no certificate in the file.
    #[error("--tls-cert '{}' has no certificate: it takes PEM, the server's own first", .0.display())]
    Empty(PathBuf),
    /// Certificate and key do not work together.
    #[error("--tls-cert '{}' and --tls-key '{}' can't be used: {cause}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        cause: rustls::Error,
    },
}

/// The certificate that new connections are shown.
#[derive(Debug)]
pub(super) struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// When they can't be read or don't belong together.
    pub fn read(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(Arc::new(certified(&files)?));
        Ok(Arc::new(Self { files, current }))
    }

    /// Reads the files anew.
    ///
    /// # Errors
    /// As [`Certificate::read`]; what was shown before stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(certified(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What shakes hands with it.
    pub fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has every suite of TLS 1.2 and 1.3");
        let shown = Arc::new(Shown(Arc::clone(self)));
        let mut config = versions.with_no_client_auth().with_cert_resolver(shown);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

struct Shown(Arc<Certificate>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn certified(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let TlsFiles { cert, key } = files;
    let chain =
        chain(cert).map_err(|cause| TlsError::Pem { flag: "--tls-cert", path: cert.clone(), cause })?;
    if chain.is_empty() {
        return Err(TlsError::Empty(cert.clone()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|cause| TlsError::Pem {
        flag: "--tls-key",
        path: key.clone(),
        cause,
    })?;
    CertifiedKey::from_der(chain, secret, &ring::default_provider()).map_err(|cause| TlsError::Pair {
        cert: cert.clone(),
        key: key.clone(),
        cause,
    })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_file_iter(path)?.collect()
}
