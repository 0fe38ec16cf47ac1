//! Certificates that are renewed under a node that runs: both of its ports show the new ones, and what is no certificate
//! changes nothing.

use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::support::Sandbox;
use crate::support::certificates::{Authority, ServerFiles};
use crate::support::ports::free_ports;

/// The certificate that is shown at a port of this host; none where nobody answers.
fn shown(authority: &Authority, port: u16) -> Option<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config =
        config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Nodes go on to ask for a certificate, and have shown theirs by then.
    while client.peer_certificates().is_none() && client.complete_io(&mut stream).is_ok() {}
    client.peer_certificates().map(|chain| chain[0].clone())
}

#[test]
fn http_api_and_nodes_show_certificates_that_were_renewed() {
    let authority = Authority::new("ours");
    let first_port = free_ports(2);
    let sandbox = Sandbox::new("");
    let put = |name: &str, text: &str| {
        sandbox.write("new", text);
        std::fs::rename(sandbox.path("new"), sandbox.path(name)).unwrap();
    };
    let issue = || {
        let ServerFiles { certificate, key } = authority.server("127.0.0.1");
        let node = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        put("node.pem", &certificate);
        put("node.key", &key);
        node
    };
    let first = issue();
    let (member, http) = (format!("1=127.0.0.1:{first_port}"), (first_port + 1).to_string());
    let authority_file = authority.file();
    let mut command = sandbox.command(&["coordinator", "--id=1", "--members", &member, "--data-dir=data"]);
    command.args(["--state-dir=state", "--http", &http, "--tls-certificate=node.pem", "--tls-key=node.key"]);
    command.arg("--tls-authority").arg(&authority_file).arg("--with-parent");
    let log = std::fs::File::create(sandbox.path("log")).unwrap();
    // Ends with its stdin, however this test ends.
    let mut coordinator = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let said = || std::fs::read_to_string(sandbox.path("log")).unwrap();
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(180), "in vain: {what}; {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let both = |wanted: &CertificateDer<'_>| {
        [first_port, first_port + 1].iter().all(|port| shown(&authority, *port).is_some_and(|shown| shown == *wanted))
    };
    until("the node shows its certificate", &|| both(&first));
    let second = issue();
    until("both ports show the new one", &|| both(&second));

    put("node.pem", "no certificate");
    until("it is refused", &|| said().contains("stay in force"));
    assert!(both(&second), "what is wrong changes nothing");
    let said_now = said();
    let line = said_now.lines().find(|line| line.contains("stay in force")).unwrap();
    assert!(line.contains(" WARN ") && line.contains("'node.pem'"), "{line}");
    let third = issue();
    until("the file is mended", &|| both(&third));
    drop(coordinator.stdin.take());
    assert!(coordinator.wait().unwrap().success(), "{}", said());
}
