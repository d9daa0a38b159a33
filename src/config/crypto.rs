/// Chooses whose arithmetic TLS clients use: ring's, as the server does. To be called before a client is made; only the first
/// call of a process counts.
pub(crate) fn choose_crypto() {
    // Who was faster has chosen the same.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
}
