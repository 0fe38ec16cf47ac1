//! What is wrong with a table of PostgreSQL gives one message that says what, where and what to do, before anything is
//! written.

use super::sandbox;
use super::server::Server;
use crate::support::{assert_says, text};

#[test]
fn what_does_not_fit_is_refused_at_the_start() {
    let server = Server::start();
    let table = server.database(
        "errors",
        "CREATE TABLE t (id bigint PRIMARY KEY, n int, x numeric(6,2), ts timestamp(0), must text NOT NULL DEFAULT '');
         CREATE TABLE strict (id bigint, must text NOT NULL)",
    );
    let job = |columns: &str, values: &str, options: &str| {
        format!("CREATE TABLE t ({columns}) WITH ({options}); INSERT INTO t VALUES ({values});")
    };
    let at = |name: &str| format!("{table}, 'table-name' = '{name}'");
    let wrong_password = at("t").replace("${file:password}", "nonsense");
    let unreachable = at("t").replace(&server.port.to_string(), "1");
    let elsewhere = at("t").replace("/errors'", "/nowhere'");
    let cases: [(String, &[&str]); 12] = [
        (job("id BIGINT", "1", &at("missing")), &["no table 'missing'", "check 'table-name'"]),
        (
            job("id BIGINT, m INT", "1, 2", &at("t")),
            &["the column 'm' is not in", "\"public\".\"t\"", "id, n, x, ts, must"],
        ),
        (job("id BIGINT, n BIGINT", "1, 2", &at("t")), &["the column 'n' is declared as BIGINT and is integer in"]),
        (
            job("x DECIMAL(9, 3)", "1", &at("t")),
            &["DECIMAL(9, 3)", "numeric(6,2)", "digits after the point would be lost"],
        ),
        (job("x DECIMAL(9, 2)", "1", &at("t")), &["numeric(6,2)", "fewer digits in front"]),
        (job("n STRING", "'1'", &at("t")), &["STRING", "integer", "cast it in the query"]),
        (job("id BIGINT", "1", &at("strict")), &["'must'", "NOT NULL without a default"]),
        (
            job("id BIGINT, must STRING, PRIMARY KEY (id) NOT ENFORCED", "1, 'a'", &at("strict")),
            &["PRIMARY KEY (id)", "unique index"],
        ),
        (
            job("id BIGINT", "1", &wrong_password),
            &["refuses the connection of user 'tester'", "check 'username' and 'password'"],
        ),
        (job("id BIGINT", "1", &elsewhere), &["\"nowhere\" does not exist", "check the database's name"]),
        (
            job("id BIGINT", "1", &unreachable),
            &["cannot connect to PostgreSQL at 127.0.0.1:1/errors", "refused", "check host and port"],
        ),
        (job("id BIGINT", "1", &at("t").replace("'username'", "'user-name'")), &["user-name"]),
    ];
    for (sql, parts) in cases {
        // A server that cannot be reached may come back: without this the job waits for it.
        let sandbox = sandbox(&format!("SET 'restart-strategy.type' = 'none';\n{sql}"));
        let message = sandbox.run_err(&["run", "job.sql"]);
        assert_says(&message, parts);
        let lines = message.lines().filter(|line| line.contains(parts[0])).count();
        assert!(lines <= 2, "said {lines} times: {message}");
    }
    assert_eq!(server.value("errors", "SELECT COUNT(*) FROM t"), "0");
}

#[test]
fn a_row_that_the_table_refuses_is_shown_and_goes_when_the_table_allows_it() {
    let server = Server::start();
    let table = server.database("refused", "CREATE TABLE t (id bigint CHECK (id < 3))");
    let sql =
        format!("CREATE TABLE t (id BIGINT) WITH ({table}, 'table-name' = 't'); INSERT INTO t VALUES (1), (2), (3);");
    let sandbox = sandbox(&sql);
    let message = sandbox.run_err(&["run", "job.sql"]);
    assert_says(&message, &["cannot publish epoch 1", "t_id_check", "(3)"]);
    assert_eq!(server.value("refused", "SELECT COUNT(*) FROM t"), "0", "all of the epoch or nothing");
    server.query("refused", "ALTER TABLE t DROP CONSTRAINT t_id_check");
    let output = sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(server.value("refused", "SELECT COUNT(*) FROM t"), "3", "{}", text(&output.stderr));
}
