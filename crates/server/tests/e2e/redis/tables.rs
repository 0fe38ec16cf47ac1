//! What rows become under which keys, and what is said of what cannot be.

use std::collections::BTreeMap;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::sandbox;
use crate::support::ports::free_port;
use crate::support::redis::{PASSWORD, Redis};
use crate::support::{assert_says, text};

#[test]
fn rows_become_hashes_and_texts_under_their_keys() {
    let server = Redis::start();
    let table = server.options();
    let sandbox = sandbox(&format!(
        "CREATE TABLE kinds (id INT, part STRING, amount DECIMAL(10, 2), ok BOOLEAN, at TIMESTAMP(3), tags ARRAY<STRING>,
           PRIMARY KEY (id, part) NOT ENFORCED) WITH ({table});
         CREATE TABLE texts (id INT, name STRING, PRIMARY KEY (id) NOT ENFORCED)
           WITH ({table}, 'mode' = 'string', 'key-pattern' = 'text/{{id}}/x', 'ttl' = '1 h');
         INSERT INTO kinds VALUES
           (1, 'a:b', 1.5, TRUE, TIMESTAMP '2026-01-02 03:04:05', ARRAY['x', 'y']),
           (2, 'c', CAST(NULL AS DECIMAL(10, 2)), FALSE, CAST(NULL AS TIMESTAMP(3)), CAST(NULL AS ARRAY<STRING>));
         INSERT INTO texts VALUES (7, 'seven \"7\"');"
    ));
    // What stands there from before: fields of the table that are NULL go, others stay.
    server.ask::<u64>(&["HSET", "kinds:2:c", "amount", "9.99", "note", "kept"]);
    sandbox.run_ok(&["run", "job.sql"]);
    let hash = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let found = server.hashes("kinds:");
    let first = [
        ("id", "1"),
        ("part", "a:b"),
        ("amount", "1.50"),
        ("ok", "true"),
        ("at", "2026-01-02 03:04:05"),
        ("tags", r#"["x","y"]"#),
    ];
    assert_eq!(found["kinds:1:a%3Ab"], hash(&first));
    assert_eq!(found["kinds:2:c"], hash(&[("id", "2"), ("part", "c"), ("ok", "false"), ("note", "kept")]));
    assert_eq!(found.len(), 2);
    assert_eq!(server.ask::<String>(&["GET", "text/7/x"]), r#"{"id":7,"name":"seven \"7\""}"#);
    let ttl_ms: i64 = server.ask(&["PTTL", "text/7/x"]);
    assert!((3_000_000..=3_600_000).contains(&ttl_ms), "{ttl_ms}");
    assert_eq!(server.ask::<i64>(&["PTTL", "kinds:2:c"]), -1);
}

#[test]
fn what_cannot_be_is_said_with_what_to_do_and_without_the_password() {
    let server = Redis::start();
    let job = |columns: &str, values: &str, options: &str| {
        format!(
            "SET 'restart-strategy.type' = 'none';
             CREATE TABLE t ({columns}) WITH ({options}); INSERT INTO t VALUES ({values});"
        )
    };
    let keyed = "id INT, PRIMARY KEY (id) NOT ENFORCED";
    let table = server.options();
    let wrong = table.replace("${file:password}", "wr0ng-SECRET");
    let nowhere = table.replace(&server.port.to_string(), "1");
    server.ask::<String>(&["SET", "t:5", "a text"]);
    for (sql, parts) in [
        (job("id INT", "1", &table), &["PRIMARY KEY (...) NOT ENFORCED"][..]),
        (job(keyed, "1", &wrong), &["cannot connect", "check 'username' and 'password'"]),
        (job(keyed, "1", &nowhere), &["127.0.0.1:1/0", "check that the server runs"]),
        (job(keyed, "5", &table), &["a key holds something else", "'key-pattern'"]),
        (job(keyed, "1", &format!("{table}, 'key-pattern' = 'x'")), &["lacks {id}"]),
        (job(keyed, "1", &format!("{table}, 'ttl' = 'soon'")), &["'ttl'", "a duration such as"]),
        (job(keyed, "1", &format!("{table}, 'mod' = 'hash'")), &["unknown option 'mod'", "mode"]),
    ] {
        let message = sandbox(&sql).run_err(&["run", "job.sql"]);
        assert_says(&message, parts);
        assert!(!message.contains(PASSWORD) && !message.contains("wr0ng"), "{message}");
    }
    // Otherwise it takes a port that the system may have given to a connection.
    let port = free_port().to_string();
    let cluster = Redis::start_with(&["--cluster-enabled", "yes", "--cluster-port", &port]);
    let message = sandbox(&job(keyed, "1", &cluster.options())).run_err(&["run", "job.sql"]);
    assert_says(&message, &["part of a cluster", "several nodes"]);
}

#[test]
fn a_server_that_comes_late_is_waited_for() {
    let mut server = Redis::start();
    let sandbox = sandbox(&format!(
        "CREATE TABLE t (id INT, PRIMARY KEY (id) NOT ENFORCED) WITH ({}); INSERT INTO t VALUES (1), (2);",
        server.options()
    ));
    server.kill();
    let job = sandbox.command(&["run", "job.sql"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    server.go_on();
    let output = job.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(server.hashes("t:").len(), 2);
}

#[test]
fn a_server_is_reached_over_tls_if_its_certificate_is_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(path("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("server.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
    let port = free_port().to_string();
    let (certificate, key, authority) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let settings = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let trust = ["--tls-ca-cert-file", authority.as_str(), "--tls-auth-clients", "no"];
    let server = Redis::start_with(&[&settings[..], &trust].concat());
    let job = |more: &str| {
        sandbox(&format!(
            "SET 'restart-strategy.type' = 'none';
             CREATE TABLE t (id INT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'redis',
               'url' = 'rediss://127.0.0.1:{port}', 'password' = '${{file:password}}'{more});
             INSERT INTO t VALUES (1);"
        ))
    };
    let message = job("").run_err(&["run", "job.sql"]);
    assert_says(&message.to_lowercase(), &["certificate"]);
    job(&format!(", 'tls.ca-file' = '{authority}'")).run_ok(&["run", "job.sql"]);
    assert_eq!(server.hashes("t:").len(), 1);
}
