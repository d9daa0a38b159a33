//! TLS on both doors of a real server, and certificates that are exchanged while it runs.

use std::{fs, path::Path, sync::Arc};

use dept::api::grpc::proto::{
    GenerateRequest, generate_request::Prompt, inference_service_client::InferenceServiceClient,
};
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    },
};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::support::process::Server;

/// Writes a new pair for localhost into `folder`.
fn renew(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// A gRPC channel that trusts `certificate` alone.
async fn channel(
    address: &str,
    certificate: &CertificateDer<'static>,
) -> Result<Channel, tonic::transport::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let shake = move |at: tonic::transport::Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(at.authority().unwrap().as_str()).await?;
            let name = ServerName::try_from("localhost").unwrap();
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    };
    Endpoint::from_shared(address.to_owned())?.connect_with_connector(service_fn(shake)).await
}

async fn answer(channel: Channel) -> Result<String, tonic::Status> {
    let request = GenerateRequest {
        adapter: "sst2".into(),
        prompt: Some(Prompt::Text("sentence: a warm , funny and moving film .".into())),
        ..GenerateRequest::default()
    };
    let answer = InferenceServiceClient::new(channel).generate(request).await?;
    Ok(answer.into_inner().choices.remove(0).text)
}

#[tokio::test]
async fn grpc_is_spoken_over_tls_alone_and_with_the_newest_certificate() {
    let folder = TempDir::new().unwrap();
    let first = renew(folder.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server = Server::start(&["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")]);

    let held = channel(&server.grpc, &first).await.unwrap();
    assert_eq!(answer(held.clone()).await.unwrap(), "positive");
    let plain = Endpoint::from_shared(server.grpc.clone()).unwrap().connect().await;
    let refused = match plain {
        Ok(channel) => answer(channel).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "nothing is said in the clear");

    let second = renew(folder.path());
    server.signal("-HUP");
    let counted = "dept_reloads_total{file=\"tls\",outcome=\"ok\"}";
    while server.counted(counted).await == 0.0 {}
    assert_eq!(answer(channel(&server.grpc, &second).await.unwrap()).await.unwrap(), "positive");
    assert!(channel(&server.grpc, &first).await.is_err(), "the old one is no longer shown");
    assert_eq!(answer(held).await.unwrap(), "positive", "what was connected stays so");
}
