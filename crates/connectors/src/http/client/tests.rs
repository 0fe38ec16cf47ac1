//! Requests over TLS, with certificates that are trusted and that are not.

use std::path::Path;

use arrow::datatypes::{DataType, Field, Schema};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::table::TableSpec;

/// A server that takes everything; gives its port. The certificate of who vouches for it goes to a file.
async fn server(authority: &Path) -> u16 {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(authority, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).await.unwrap_or(0);
            if String::from_utf8_lossy(&bytes[..read]).starts_with("POST /hook HTTP/1.1") {
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
            }
        }
    });
    port
}

fn client(url: &str, more: &[(&str, &str)]) -> Result<HttpClient, ConnectorError> {
    let options =
        [("connector", "http"), ("url", url), ("format", "json"), ("retry.max", "1"), ("retry.delay", "1 ms")];
    let table = TableSpec {
        name: "t".into(),
        schema: Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])),
        primary_key: Vec::new(),
        partition_keys: Vec::new(),
        options: options.iter().chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    HttpClient::open(Arc::new(HttpOptions::read(&table)?))
}

#[tokio::test]
async fn certificates_are_checked_against_those_that_are_to_be_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let (trusted, other) = (directory.path().join("ca.pem"), directory.path().join("other.pem"));
    let port = server(&trusted).await;
    server(&other).await;
    let url = format!("https://127.0.0.1:{port}/hook");
    let with = |path: &Path| client(&url, &[("tls.ca-file", &path.display().to_string())]);
    let sent = with(&trusted).unwrap().send("k", Bytes::from_static(b"{}")).await;
    assert!(matches!(sent, Ok(Sent::Taken)), "{sent:?}");
    for client in [with(&other).unwrap(), client(&url, &[]).unwrap()] {
        let error = client.send("k", Bytes::from_static(b"{}")).await.unwrap_err();
        assert!(error.is_retryable() && error.message.to_lowercase().contains("certificate"), "{error}");
    }
    std::fs::write(&other, "nothing").unwrap();
    assert!(with(&other).err().unwrap().message.contains("holds no certificate"));
}
