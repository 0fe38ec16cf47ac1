//! Brokers that are spoken to by TLS, and want to know who speaks.

use std::path::Path;

use super::Running;
use crate::support::certificates::Authority;
use crate::support::kafka::{Access, Broker};
use crate::support::ports::free_port;
use crate::support::{Sandbox, assert_says, message_of_failure, output_of, text};

const PLAIN_PASSWORD: &str = "canary-plain-5d0c";
const SCRAM_PASSWORD: &str = "canary-scram-91ae";
const WRONG_PASSWORD: &str = "canary-wrong-77b2";

/// A broker, the ports on which it speaks TLS without and with names, and who vouches for it.
struct Secured {
    broker: Broker,
    tls: u16,
    named: u16,
    authority: Authority,
    _files: tempfile::TempDir,
}

fn secured() -> Secured {
    let authority = Authority::new("authority of brokers");
    let files = tempfile::tempdir().unwrap();
    let server = authority.server("127.0.0.1");
    let keystore = files.path().join("broker.pem");
    std::fs::write(&keystore, server.key + &server.certificate).unwrap();
    let (tls, named) = (free_port(), free_port());
    let module = "org.apache.kafka.common.security";
    let access = Access {
        listeners: vec![("SSL", tls), ("SASL_SSL", named)],
        properties: format!(
            "ssl.keystore.type=PEM\nssl.keystore.location={}\nsasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required \
             user_anna=\"{PLAIN_PASSWORD}\";\n\
             listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;\n",
            keystore.display()
        ),
        users: vec!["--add-scram".to_owned(), format!("SCRAM-SHA-256=[name=berta,password={SCRAM_PASSWORD}]")],
    };
    Secured { broker: Broker::start_secured(&access), tls, named, authority, _files: files }
}

/// Copies `in` to a topic; the password is what the variable `KAFKA_PASSWORD` says.
fn copy(port: u16, to: &str, options: &str) -> String {
    let with = |topic: &str, more: &str| {
        format!(
            "WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '127.0.0.1:{port}',
               'format' = 'json', {options}{more})"
        )
    };
    format!(
        "CREATE TABLE t (id BIGINT) {}; CREATE TABLE o (id BIGINT) {}; INSERT INTO o SELECT id FROM t;",
        with("in", ", 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'"),
        with(to, ""),
    )
}

/// The same that ends with the first failure.
fn copy_once(port: u16, to: &str, options: &str) -> String {
    "SET 'restart-strategy.type' = 'none';\n".to_owned() + &copy(port, to, options)
}

fn trust(authority: &Authority) -> String {
    format!("'properties.ssl.ca.location' = '{}'", authority.file().display())
}

fn sasl(trusted: &str, mechanism: &str, user: &str) -> String {
    format!(
        "{trusted}, 'properties.security.protocol' = 'SASL_SSL', 'properties.sasl.mechanism' = '{mechanism}',
         'properties.sasl.username' = '{user}', 'properties.sasl.password' = '${{env:KAFKA_PASSWORD}}'"
    )
}

fn run(sql: &str, password: &str) -> (Sandbox, std::process::Output) {
    let sandbox = Sandbox::new(sql);
    let mut command = sandbox.command(&["run", "job.sql", "--checkpoint-interval", "100 ms"]);
    command.env("KAFKA_PASSWORD", password).env("MAINSTEM_LOG", "trace").env("RUST_LOG", "trace");
    let output = output_of(command);
    (sandbox, output)
}

/// What it has said without its traces.
fn last_words(output: &std::process::Output) -> String {
    let said = text(&output.stderr);
    let is_trace = |line: &&str| ["TRACE", "DEBUG"].iter().any(|level| line.contains(level));
    let lines: Vec<&str> = said.lines().filter(|line| !is_trace(line)).collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[track_caller]
fn assert_keeps_secrets(sandbox: &Sandbox, output: &std::process::Output) {
    let said = text(&output.stdout) + &text(&output.stderr);
    let mut files = Vec::new();
    files_below(&sandbox.path(".mainstem"), &mut files);
    for secret in [PLAIN_PASSWORD, SCRAM_PASSWORD, WRONG_PASSWORD] {
        assert!(!said.contains(secret), "{said}");
        let holds = |file: &&std::path::PathBuf| text(&std::fs::read(file).unwrap()).contains(secret);
        assert_eq!(files.iter().find(holds), None);
    }
}

fn files_below(directory: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files_below(&entry.path(), files),
            false => files.push(entry.path()),
        }
    }
}

#[test]
fn tls_and_names_of_users_open_a_broker_and_wrong_ones_are_said() {
    let Secured { broker, tls, named, authority, .. } = &secured();
    broker.create("in", 2);
    let producer = broker.producer();
    (0..100).for_each(|id| producer.send("in", Some(id % 2), None, Some(&format!(r#"{{"id":{id}}}"#))));
    producer.flush();
    let (trusted, other) = (trust(authority), Authority::new("somebody else"));
    let encrypted = |trusted: &str| format!("{trusted}, 'properties.security.protocol' = 'SSL'");
    let good = [
        ("by-tls", *tls, encrypted(&trusted), "none"),
        ("by-plain", *named, sasl(&trusted, "PLAIN", "anna"), PLAIN_PASSWORD),
        ("by-scram", *named, sasl(&trusted, "SCRAM-SHA-256", "berta"), SCRAM_PASSWORD),
    ];
    for (topic, port, options, password) in good {
        broker.create(topic, 1);
        let (sandbox, output) = run(&copy(port, topic, &options), password);
        assert!(output.status.success(), "{topic}: {}", last_words(&output));
        let seen = super::counted(broker.read(topic).into_iter().map(|message| message.value.unwrap()));
        assert_eq!((seen.len(), seen.values().sum::<usize>()), (100, 100), "{topic}");
        assert_keeps_secrets(&sandbox, &output);
    }
    // Each of them waits for as long as brokers may take to answer, so all do it at once.
    let refused = ["uthentication failed", "properties.sasl.*", "table 't' cannot look at topic 'in'"];
    let untrusted = ["certificate verify failed", "properties.ssl.*", "table 't' cannot look at topic 'in'"];
    let of_sink = ["uthentication failed", "properties.sasl.*", "table 'o' cannot write to topic 'by-tls'"];
    let read = |port: &u16, options: &str| copy_once(*port, "by-tls", options);
    let written = read(named, &sasl(&trusted, "PLAIN", "anna"))
        .replace("FROM t;", "FROM numbers;")
        .replace("CREATE TABLE t", "CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen'); CREATE TABLE t");
    let wrong = [
        (read(named, &sasl(&trusted, "PLAIN", "anna")), WRONG_PASSWORD, refused),
        (read(named, &sasl(&trusted, "SCRAM-SHA-256", "berta")), WRONG_PASSWORD, refused),
        (read(named, &sasl(&trusted, "SCRAM-SHA-256", "nobody")), SCRAM_PASSWORD, refused),
        (read(tls, &encrypted(&trust(&other))), "none", untrusted),
        (written, WRONG_PASSWORD, of_sink),
    ];
    std::thread::scope(|scope| {
        for (sql, password, parts) in wrong {
            scope.spawn(move || {
                let (sandbox, output) = run(&sql, password);
                let said = message_of_failure(&output);
                let last = said.lines().rfind(|line| line.contains("job 'job' failed")).unwrap_or(&said);
                assert_says(last, &parts);
                assert_keeps_secrets(&sandbox, &output);
            });
        }
        // A broker that just ends a connection may come back, so the job waits, and says what may be wrong.
        let sandbox = Sandbox::new(&read(tls, "'properties.client.id' = 'x'"));
        let mut job = Running::start(&sandbox, &["run", "job.sql"]);
        job.until(&sandbox, "what may be wrong", || {
            let said = std::fs::read_to_string(sandbox.path("stderr.log")).unwrap();
            said.contains("table 't' cannot look at topic 'in'") && said.contains("'properties.security.protocol'")
        });
    });
}
