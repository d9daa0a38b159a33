use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    },
};

use super::{
    TlsError, descriptors,
    signal::Hangups,
    tls::Certificate,
    watch::{Watched, watch},
};
use crate::{
    api::http::server::{Phase, serve},
    config::{ConnectionLimits, TlsFiles},
    telemetry::Metrics,
};

/// A folder with a certificate for localhost.
struct Pair {
    folder: TempDir,
    files: TlsFiles,
}

impl Pair {
    fn new() -> (Self, CertificateDer<'static>) {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let pair = Self { folder, files };
        let certificate = pair.renew();
        (pair, certificate)
    }

    /// Another certificate in the same files.
    fn renew(&self) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&self.files.cert, cert.pem()).unwrap();
        fs::write(&self.files.key, signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }
}

/// Shakes hands with a server, trusting `trusted` alone.
async fn shake(
    address: std::net::SocketAddr,
    trusted: &CertificateDer<'static>,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = versions
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

const LIMITS: ConnectionLimits = ConnectionLimits {
    max_connections: 8,
    head_timeout: Duration::from_millis(500),
    idle_timeout: Duration::from_secs(600),
    stall_timeout: Duration::from_secs(600),
};

#[tokio::test]
async fn both_protocols_are_spoken_and_the_certificate_is_exchanged() {
    let (pair, first) = Pair::new();
    let certificate = Certificate::read(pair.files.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_phase, phases) = watch::channel(Phase::Serving);
    let router = Router::new().route("/", get(|| async { "hello" }));
    tokio::spawn(serve(listener, Some(certificate.acceptor()), router, LIMITS, phases));

    let mut stream = shake(address, &first, &[b"http/1.1"]).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("hello"), "{text}");

    let stream = shake(address, &first, &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::get("https://localhost/").body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);

    let second = pair.renew();
    assert!(shake(address, &first, &[b"h2"]).await.is_ok(), "not before it is read anew");
    certificate.reload().unwrap();
    assert!(shake(address, &second, &[b"h2"]).await.is_ok());
    assert!(shake(address, &first, &[b"h2"]).await.is_err(), "the old one is no longer shown");

    fs::write(&pair.files.cert, "-----BEGIN").unwrap();
    assert!(certificate.reload().is_err());
    assert!(shake(address, &second, &[b"h2"]).await.is_ok(), "what was sound stays");
    assert!(shake(address, &second, &[b"spdy"]).await.is_err());

    // Who never shakes hands, or speaks plainly, is cut off.
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0);
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes).await;
    assert!(!bytes.starts_with(b"HTTP"));
}

#[test]
fn a_broken_pair_is_named() {
    let read = |files: &TlsFiles| Certificate::read(files.clone()).unwrap_err();
    let (pair, _) = Pair::new();
    let (other, _) = Pair::new();
    let crossed = TlsFiles { cert: pair.files.cert.clone(), key: other.files.key.clone() };
    assert!(matches!(read(&crossed), TlsError::Pair { .. }), "{}", read(&crossed));
    let swapped = TlsFiles { cert: pair.files.key.clone(), key: pair.files.cert.clone() };
    assert!(matches!(read(&swapped), TlsError::Empty(_)), "{}", read(&swapped));
    let missing = TlsFiles { key: pair.folder.path().join("none.pem"), ..pair.files.clone() };
    let error = read(&missing).to_string();
    assert!(error.contains("--tls-key") && error.contains("none.pem"), "{error}");
    fs::write(&pair.files.cert, "").unwrap();
    assert!(read(&pair.files).to_string().contains("has no certificate"));
}

/// A watch over `file` that counts how often it is read anew; the first byte says whether it is sound.
fn counted(file: &Path) -> (Watched, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let (path, counted) = (file.to_owned(), Arc::clone(&count));
    let reload = Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        if fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"+")) {
            Ok(())
        } else {
            Err("broken".to_owned())
        }
    });
    (Watched { name: "api_keys", files: vec![file.to_owned()], reload }, count)
}

#[tokio::test]
async fn a_file_is_read_anew_when_its_bytes_change_and_only_then() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, "+1").unwrap();
    let (watched, count) = counted(&file);
    let metrics = Arc::new(Metrics::default());
    let period = Duration::from_millis(1);
    let watching = tokio::spawn(watch(vec![watched], Arc::clone(&metrics), Hangups::new(), period));
    let until = |text: &'static str| {
        let metrics = Arc::clone(&metrics);
        async move {
            while !metrics.render().contains(text) {
                tokio::task::yield_now().await;
            }
        }
    };
    // The watcher has seen the file once it has looked at a change of it.
    let mut text = "+1".to_owned();
    while count.load(Ordering::SeqCst) == 0 {
        text.push('+');
        fs::write(&file, &text).unwrap();
        tokio::task::yield_now().await;
    }
    until(r#"dept_reloads_total{file="api_keys",outcome="ok"}"#).await;
    fs::write(&file, "-broken").unwrap();
    until(r#"dept_reloads_total{file="api_keys",outcome="error"} 1"#).await;
    fs::remove_file(&file).unwrap();
    until(r#"dept_reloads_total{file="api_keys",outcome="error"} 2"#).await;
    watching.abort();
    let _ = watching.await;
    let seen = count.load(Ordering::SeqCst);
    fs::write(&file, "+").unwrap();
    assert_eq!(count.load(Ordering::SeqCst), seen, "nobody watches any more");
}

#[test]
fn some_descriptors_are_left_for_the_rest() {
    assert_eq!(descriptors::room_for(1, 2), 1);
    let most = descriptors::room_for(usize::MAX, 1);
    assert!(most > 1 && most <= usize::MAX - 128, "{most}");
    assert_eq!(descriptors::room_for(usize::MAX, 2), most / 2);
}
