//! Mutual TLS: who is trusted, and what both sides say when somebody is not.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::certificates::{Authority, Flaw};
use super::{assert_says, pair, refusals, soon};
use crate::tls::TlsConfig;
use crate::{Listener, NetError, TlsFiles, Transport};

async fn listen(files: &TlsFiles) -> Listener {
    Transport::tls(files).expect("good files").listen("127.0.0.1:0").await.expect("a port")
}

/// A client that trusts the authority and shows no certificate.
fn without_certificate(files: &TlsFiles) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.authority).expect("a certificate")).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[tokio::test]
async fn others_need_no_certificate_and_one_that_they_show_must_be_of_the_authority() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let files = ours.node("a", Flaw::None, &[]);
    let https = Transport::tls(&files).expect("good files").https().expect("by TLS");
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("an address");
    let client = |files: &TlsFiles| TlsConfig::read(files).expect("good files").client;
    let (node, stranger) = (ours.node("b", Flaw::None, &[]), theirs.node("c", Flaw::None, &[&ours]));
    let clients = [(without_certificate(&files), Some(false)), (client(&node), Some(true)), (client(&stranger), None)];
    for (config, expected) in clients {
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            let host = ServerName::try_from("127.0.0.1").expect("a host");
            TlsConnector::from(config).connect(host, stream).await
        };
        let accepting = async {
            let (stream, _) = port.accept().await.expect("a connection");
            https.accept(stream).await
        };
        let (_connected, accepted) = soon(async { tokio::join!(connecting, accepting) }).await;
        assert_eq!(accepted.ok().map(|(_, is_certified)| is_certified), expected);
    }
}

#[tokio::test]
async fn nodes_of_one_authority_speak_and_end_cleanly() {
    let authority = Authority::new("ours");
    let mut listener = listen(&authority.node("a", Flaw::None, &[])).await;
    let transport = Transport::tls(&authority.node("b", Flaw::None, &[])).expect("good files");
    assert!(transport.is_tls());
    let (mut called, mut accepted) = pair(&mut listener, &transport).await;
    let large = vec![3; 3 << 20];
    let sent = async {
        called.writer.write(&[b"head", &large]).await.expect("sent");
        called.writer.close().await.expect("closed");
    };
    let received = async {
        let frame = accepted.reader.read().await.expect("no error").expect("a frame");
        assert_eq!((frame.len(), &frame[..5]), (large.len() + 4, b"head\x03".as_slice()));
        assert!(accepted.reader.read().await.expect("a clean end").is_none());
    };
    soon(async { tokio::join!(sent, received) }).await;
}

#[tokio::test]
async fn a_foreign_authority_is_refused_by_the_side_that_does_not_know_it() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let mut listener = listen(&ours.node("a", Flaw::None, &[])).await;
    let address = listener.local_address();

    // The caller does not know the listening side.
    let stranger = Transport::tls(&theirs.node("b", Flaw::None, &[])).expect("good files");
    let (error, refusal) = refusals(&mut listener, &stranger, &address).await;
    assert_says(&error.to_string(), &[&address, "connecting to", "this node refuses", "authority"]);
    assert_says(&refusal, &["accepting", "the other side refuses this node's certificate", "authority"]);

    // The listening side does not know the caller.
    let trusting = Transport::tls(&theirs.node("c", Flaw::None, &[&ours])).expect("good files");
    let (error, refusal) = refusals(&mut listener, &trusting, &address).await;
    assert!(matches!(error, NetError::Tls { .. }) && !error.is_retryable(), "{error}");
    assert_says(&error.to_string(), &[&address, "the other side refuses this node's certificate", "authority"]);
    assert_says(&refusal, &["accepting", "this node refuses the other's certificate", "authority"]);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_both_sides() {
    let authority = Authority::new("ours");
    let expired = authority.node("old", Flaw::Expired, &[]);
    let good = authority.node("good", Flaw::None, &[]);

    let mut listener = listen(&good).await;
    let address = listener.local_address();
    let (error, refusal) = refusals(&mut listener, &Transport::tls(&expired).expect("readable"), &address).await;
    assert_says(&error.to_string(), &["the other side refuses", "expired", "renew"]);
    assert_says(&refusal, &["this node refuses", "expired", "renew"]);

    let mut listener = listen(&expired).await;
    let address = listener.local_address();
    let (error, refusal) = refusals(&mut listener, &Transport::tls(&good).expect("readable"), &address).await;
    assert_says(&error.to_string(), &["this node refuses", "expired", "renew"]);
    assert_says(&refusal, &["the other side refuses", "expired"]);
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused() {
    let authority = Authority::new("ours");
    let mut listener = listen(&authority.node("a", Flaw::OtherHost, &[])).await;
    let transport = Transport::tls(&authority.node("b", Flaw::None, &[])).expect("good files");
    let address = listener.local_address();
    let (error, _) = refusals(&mut listener, &transport, &address).await;
    assert_says(&error.to_string(), &["127.0.0.1", "elsewhere.example", "subject alternative name"]);
}

#[tokio::test]
async fn without_a_certificate_nobody_comes_in() {
    let authority = Authority::new("ours");
    let files = authority.node("a", Flaw::None, &[]);
    let mut listener = listen(&files).await;
    let config = without_certificate(&files);
    let stream = TcpStream::connect(listener.local_address()).await.expect("connects");
    let host = ServerName::try_from("127.0.0.1").expect("a host");
    let connecting = async {
        let mut stream = TlsConnector::from(config).connect(host, stream).await?;
        stream.read_u8().await
    };
    let error = tokio::select! {
        read = connecting => read.expect_err("no certificate, no connection"),
        _ = listener.accept() => panic!("a peer without a certificate was accepted"),
    };
    assert_says(&error.to_string(), &["CertificateRequired"]);
    let counted = async {
        while listener.refused() == 0 {
            let _ = tokio::time::timeout(std::time::Duration::from_millis(10), listener.accept()).await;
        }
    };
    soon(counted).await;
    assert_says(listener.last_refusal().unwrap_or_default(), &["this node refuses the other", "no certificate"]);
}

#[tokio::test]
async fn plain_and_tls_do_not_mix_and_say_so() {
    let authority = Authority::new("ours");
    let files = authority.node("a", Flaw::None, &[]);
    let tls = Transport::tls(&files).expect("good files");
    let says = ["speak", "TLS", "for all nodes or for none"];

    let mut listener = listen(&files).await;
    let address = listener.local_address();
    let (error, refusal) = refusals(&mut listener, &Transport::plain(), &address).await;
    assert_says(&error.to_string(), &says);
    assert_says(&refusal, &says);

    let mut listener = Transport::plain().listen("127.0.0.1:0").await.expect("a port");
    let address = listener.local_address();
    let (error, refusal) = refusals(&mut listener, &tls, &address).await;
    assert_says(&error.to_string(), &says);
    assert_says(&refusal, &says);
}

#[tokio::test]
async fn files_that_are_not_what_they_should_be_are_named() {
    let authority = Authority::new("ours");
    let good = authority.node("a", Flaw::None, &[]);
    let other = authority.node("b", Flaw::None, &[]);
    let wrong = [
        (TlsFiles { key: other.key.clone(), ..good.clone() }, vec!["key", "b.key"]),
        (TlsFiles { certificate: good.key.clone(), ..good.clone() }, vec!["certificate", "a.key"]),
        (TlsFiles { key: good.certificate.clone(), ..good.clone() }, vec!["key", "a.crt"]),
        (TlsFiles { authority: "nowhere.ca".into(), ..good.clone() }, vec!["authority", "nowhere.ca"]),
    ];
    for (files, parts) in wrong {
        let error = Transport::tls(&files).err().expect("the files do not fit");
        assert!(matches!(error, NetError::TlsFile { .. }), "{error}");
        assert_says(&error.to_string(), &parts);
    }
}

#[tokio::test]
async fn renewed_certificates_are_used_without_a_restart() {
    let authority = Authority::new("ours");
    let good = Transport::tls(&authority.node("good", Flaw::None, &[])).expect("good files");
    let expired = authority.node("node", Flaw::Expired, &[]);
    let renewing = Transport::tls(&expired).expect("readable");
    let mut listener = renewing.listen("127.0.0.1:0").await.expect("a port");
    let address = listener.local_address();
    refusals(&mut listener, &good, &address).await;

    // The same names again, so the same files.
    assert_eq!(authority.node("node", Flaw::None, &[]), expired);
    renewing.reload().expect("good files");
    pair(&mut listener, &good).await;

    std::fs::write(&expired.certificate, "no certificate").expect("written");
    renewing.reload().expect_err("the file is spoilt");
    pair(&mut listener, &good).await;
}
