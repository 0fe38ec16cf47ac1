//! A secret that a table refers to is nowhere but where it is used.

use std::path::Path;

use super::server::{PASSWORD, Server};
use crate::support::{Sandbox, assert_says, message_of_failure, output_of, text};

fn contains(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

fn search(directory: &Path, secret: &str, found: &mut Vec<String>, files: &mut usize) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            search(&entry.path(), secret, found, files);
            continue;
        }
        *files += 1;
        if contains(&std::fs::read(entry.path()).unwrap(), secret) {
            found.push(entry.path().display().to_string());
        }
    }
}

#[test]
fn a_secret_stays_where_it_is() {
    let server = Server::start();
    let table = server.database("secrets", "CREATE TABLE t (id bigint)");
    let table = table.replace("${file:password}", "${env:PG_PASSWORD}");
    let sql = format!(
        "CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '0',
           'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '1000');
         CREATE TABLE t (id BIGINT) WITH ({table}, 'table-name' = 't');
         INSERT INTO t SELECT id FROM numbers;"
    );
    let sandbox = Sandbox::new(&sql);
    let run = |arguments: &[&str], password: Option<&str>| {
        let mut command = sandbox.command(arguments);
        command.env("RUST_LOG", "trace").env("MAINSTEM_LOG", "trace");
        match password {
            Some(password) => command.env("PG_PASSWORD", password),
            None => command.env_remove("PG_PASSWORD"),
        };
        output_of(command)
    };
    let mut said = Vec::new();
    // What only plans needs no secret.
    for command in ["check", "explain"] {
        let output = run(&[command, "job.sql"], None);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let missing = message_of_failure(&run(&["run", "job.sql"], None));
    assert_says(&missing, &["'PG_PASSWORD' is not set", "'password'", "table 't'"]);
    let wrong = run(&["run", "job.sql", "--job-id", "wrong"], Some("wrong-pw-77-SECRET"));
    assert_says(
        &message_of_failure(&wrong),
        &["refuses the connection of user 'tester'", "check 'username' and 'password'"],
    );
    let good = run(&["run", "job.sql", "--json", "--checkpoint-interval", "20 ms"], Some(PASSWORD));
    assert!(good.status.success(), "{}", text(&good.stderr));
    let again = run(&["explain", "job.sql"], Some(PASSWORD));
    for output in [wrong, good, again] {
        said.extend([output.stdout, output.stderr]);
    }
    assert_eq!(server.value("secrets", "SELECT COUNT(*) FROM t"), "1000");
    for secret in [PASSWORD, "wrong-pw-77-SECRET"] {
        for said in &said {
            assert!(!contains(said, secret), "{}", text(said));
        }
        let (mut found, mut files) = (Vec::new(), 0);
        search(&sandbox.path(".mainstem"), secret, &mut found, &mut files);
        assert!(files > 2, "{files}");
        assert_eq!(found, Vec::<String>::new());
    }
    // The reference is there: it was this table that was stored.
    let (mut found, mut files) = (Vec::new(), 0);
    search(&sandbox.path(".mainstem"), "${env:PG_PASSWORD}", &mut found, &mut files);
    assert!(!found.is_empty());
}

#[test]
fn a_secret_that_is_missing_is_named() {
    let sql = |password: &str| {
        format!(
            "CREATE TABLE t (id BIGINT) WITH ('connector' = 'postgres', 'hostname' = 'localhost', 'database-name' = 'd',
               'username' = 'u', 'password' = '{password}', 'table-name' = 't');
             INSERT INTO t VALUES (1);"
        )
    };
    let message = Sandbox::new(&sql("${file:no/such/file}")).run_err(&["run", "job.sql"]);
    assert_says(&message, &["'no/such/file' cannot be read", "option 'password' of table 't'"]);
    let refused = sql("x").replace("'table-name' = 't'", "'table-name' = 't', 'delivery' = '${env:HOME}'");
    assert_says(&Sandbox::new(&refused).run_err(&["check", "job.sql"]), &["delivery"]);
}
