//! An encrypted connection to a server that wants a token.

use async_nats::ConnectOptions;
use rcgen::{CertificateParams, KeyPair};

use crate::support::nats::Server;
use crate::support::{Sandbox, assert_says};

#[test]
fn a_connection_is_encrypted_and_the_server_has_to_prove_who_it_is() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).display().to_string();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(path("server.crt"), certificate.pem()).unwrap();
    std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
    let other = KeyPair::generate().unwrap();
    let other = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&other).unwrap();
    std::fs::write(path("other.crt"), other.pem()).unwrap();
    let config = format!(
        "tls {{ cert_file: '{}', key_file: '{}' }}\nauthorization {{ token: token-5f2c-SECRET }}",
        path("server.crt"),
        path("server.key")
    );
    let options = ConnectOptions::new().token("token-5f2c-SECRET".to_owned());
    let server = Server::start(&config, options.add_root_certificates(path("server.crt").into()));
    server.create("S");
    server.publish([("s.x".to_owned(), r#"{"id":7}"#.to_owned())]);
    let sandbox = |more: &str| {
        let sandbox = Sandbox::new(&format!(
            "SET 'restart-strategy.type' = 'none';
             CREATE TABLE t (id BIGINT) WITH ('connector' = 'nats', 'url' = 'tls://{}', 'stream' = 'S', 'format' = 'json',
               'scan.bounded.mode' = 'latest', 'token' = '${{file:token}}'{more});
             CREATE TABLE o (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
             INSERT INTO o SELECT id FROM t;",
            server.address()
        ));
        sandbox.write("token", "token-5f2c-SECRET\n");
        sandbox
    };
    let good = sandbox(&format!(", 'tls.ca-file' = '{}'", path("server.crt")));
    good.run_ok(&["run", "job.sql"]);
    assert_eq!(good.lines("out").keys().collect::<Vec<_>>(), [r#"{"id":7}"#]);
    let message = sandbox(&format!(", 'tls.ca-file' = '{}'", path("other.crt"))).run_err(&["run", "job.sql"]);
    assert_says(&message, &["certificate", "check 'tls.*'"]);
    let wrong = sandbox(&format!(", 'tls.ca-file' = '{}'", path("server.crt")));
    wrong.write("token", "token-9999-WRONG\n");
    assert_says(&wrong.run_err(&["run", "job.sql"]), &["the server refuses the token", "check 'token'"]);
}
