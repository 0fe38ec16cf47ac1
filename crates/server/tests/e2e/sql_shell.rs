//! The SQL shell, driven as a script and through a terminal.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use crate::support::cluster::LocalCluster;
use crate::support::{Sandbox, assert_says, message_of_failure, text};

const TABLES: &str =
    "CREATE TABLE orders (id BIGINT, customer STRING, amount BIGINT, ts TIMESTAMP(3), twice AS amount * 2,
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND, PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
CREATE VIEW big AS SELECT id, customer FROM orders WHERE amount > 1;
";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new("");
    let row = |id: i64, customer: &str, amount: i64| {
        format!("{{\"id\":{id},\"customer\":\"{customer}\",\"amount\":{amount},\"ts\":\"2026-01-01 00:00:0{id}\"}}\n")
    };
    sandbox.write("in/a.json", [row(1, "ada", 1), row(2, "bob", 2), row(3, "ada", 4)].concat());
    sandbox.write("tables.sql", TABLES);
    sandbox
}

fn shell(sandbox: &Sandbox, more: &[&str], sql: &str) -> Output {
    let arguments = [&["sql", "-i", "tables.sql", "-p", "2"], more, &["-e", sql]].concat();
    sandbox.run(&arguments)
}

#[track_caller]
fn answer(sandbox: &Sandbox, sql: &str) -> String {
    let output = shell(sandbox, &[], sql);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn what_is_declared_is_shown_and_taken_back() {
    let sandbox = sandbox();
    assert_eq!(
        answer(&sandbox, "SHOW TABLES; SHOW VIEWS"),
        " table  | connector\n--------+------------\n orders | filesystem\n view\n------\n big\n"
    );
    let described = answer(&sandbox, "DESCRIBE orders; DESC big;");
    assert_says(
        &described,
        &[
            " id       | BIGINT       | NOT NULL | PRIMARY KEY |",
            " ts       | TIMESTAMP(3) | NULL     |             | event time, watermark ts - INTERVAL '1",
            " twice    | BIGINT       | NULL     |             | computed: amount * 2",
            " customer | STRING | NULL",
        ],
    );
    let secret = "CREATE SECRET s AS '${env:NO_SUCH}'; CREATE TABLE p (a INT) WITH ('connector' = 'postgres', 'url' = 'postgres://h/d', \
                  'table-name' = 'p', 'username' = 'u', 'password' = '${secret:s}'); SHOW CREATE TABLE p;";
    assert_says(&answer(&sandbox, secret), &["CREATE TABLE p (a INT)", "'password' = '${secret:s}'"]);
    let plain = secret.replace("${secret:s}", "hunter2").replace("//h/d", "//u:hunter2@h/d");
    let shown = answer(&sandbox, &plain);
    assert_says(&shown, &["'password' = '(hidden)'", "'url' = 'postgres://(hidden)@h/d'"]);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_says(&answer(&sandbox, "SHOW FUNCTIONS"), &["JSON_VALUE", "| scalar", "COUNT", "| aggregate"]);
    let refused = message_of_failure(&shell(&sandbox, &[], "DROP TABLE orders;"));
    assert_says(&refused, &["'orders' cannot be dropped: 'big' needs it"]);
    let dropped = "DROP VIEW big; DROP TABLE IF EXISTS orders; DROP TABLE IF EXISTS orders; SHOW TABLES";
    assert!(!answer(&sandbox, dropped).contains("orders"));
    assert_says(
        &answer(&sandbox, "SET 'parallelism.default' = '1'; SET; RESET 'parallelism.default';"),
        &["parallelism.default"],
    );
    assert_says(&answer(&sandbox, "EXPLAIN SELECT * FROM big"), &["reads: orders by filesystem", "where: amount > 1"]);
    assert_says(
        &answer(&sandbox, "EXPLAIN GUARANTEES SELECT * FROM big"),
        &["orders (declaration of orders) -> select 1, statement at line 1: at-least-once"],
    );
}

#[test]
fn queries_run_by_the_engine_and_end_with_their_input() {
    let sandbox = sandbox();
    let rows = answer(&sandbox, "SELECT id, customer FROM big ORDER BY id");
    assert_eq!(rows, " id | customer\n----+----------\n  2 | bob\n  3 | ada\n");
    // A result that changes is shown as the table that it comes to, or as its changes.
    let totals = "SELECT customer, SUM(amount) AS total FROM orders GROUP BY customer";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().skip(2).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&answer(&sandbox, totals)), [" ada      |     5", " bob      |     2"]);
    let changes = answer(&sandbox, &format!("SET 'sql-client.execution.result-mode' = 'changelog'; {totals}"));
    assert_says(&changes, &[" op | customer | total", " +I | bob      |     2"]);
    let json = text(&shell(&sandbox, &["--json"], &format!("{totals};")).stdout);
    let mut lines: Vec<&str> = json.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, [r#"{"customer":"ada","total":5}"#, r#"{"customer":"bob","total":2}"#]);
    assert_eq!(answer(&sandbox, "SELECT id FROM orders WHERE id > 99; quit; SHOW TABLES"), " id\n----\n");
    assert!(!sandbox.path(".mainstem").exists(), "a query leaves nothing behind");

    // Mistakes are placed in the statement that has them, and end a script.
    let failed = message_of_failure(&shell(&sandbox, &[], "SHOW TABLES;\nSELECT idd\nFROM orders; SHOW VIEWS"));
    assert_says(&failed, &["--execute, statement at line 2: line 1, column 8", "1 | SELECT idd"]);
    let broken = "CREATE TABLE x (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'nowhere', 'format' = 'json'); SELECT * FROM x";
    assert_says(&message_of_failure(&shell(&sandbox, &[], broken)), &["the query failed: ", "nowhere"]);
}

#[test]
fn inserts_are_jobs_and_statements_come_through_a_pipe() {
    let sandbox = sandbox();
    let sink = "CREATE TABLE o (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');";
    let insert = "INSERT INTO o SELECT id FROM big; SHOW JOBS;";
    let mut child =
        sandbox.command(&["sql"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{TABLES}{sink}\n-- two rows\n{insert}").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_says(&text(&output.stderr), &["job 'sql-o-", "finished: 3 rows in, 2 rows out"]);
    assert_says(&text(&output.stdout), &["sql-o-", "finished", "| 3       | 2"]);
    assert_eq!(sandbox.lines("out").len(), 2);
    // Another one is another job; one that is named goes on where it was.
    answer(&sandbox, &format!("{sink}{insert}"));
    assert!(sandbox.lines("out").values().all(|count| *count == 2));
    let named = format!("{sink} SET 'pipeline.name' = 'mine'; {insert}");
    answer(&sandbox, &named);
    assert_says(&answer(&sandbox, &named), &["had finished before"]);
    assert!(sandbox.lines("out").values().all(|count| *count == 3));
    let set = format!(
        "{sink} EXECUTE STATEMENT SET BEGIN INSERT INTO o SELECT id FROM big; INSERT INTO o SELECT id + 10 FROM big; END;"
    );
    answer(&sandbox, &set);
    assert_eq!(sandbox.lines("out").len(), 4);
}

#[test]
fn a_query_without_an_end_is_stopped_and_the_next_one_runs() {
    let sandbox = sandbox();
    let endless = "SET 'sql-client.execution.result-mode' = 'changelog';
        CREATE TABLE g (k BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'fields.k.min' = '1', 'fields.k.max' = '3');
        SELECT k, COUNT(*) AS n FROM g GROUP BY k; SELECT 'after' AS word FROM big;";
    let mut shell = sandbox.command(&["sql", "-i", "tables.sql", "-e", endless]);
    let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id().to_string();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with(" +U | ")), "a count has changed");
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let rest: Vec<String> = lines.collect();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(rest[rest.len() - 4..], [" word", "-------", " after", " after"]);
    assert_says(&text(&output.stderr), &["stopped: ", "done: 2 rows"]);
    let prefix = format!("mainstem-sql-{id}-");
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap();
    let left = entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(&prefix));
    assert_eq!(left.count(), 0, "the state of queries goes with them");
}

#[test]
fn the_shell_hands_inserts_to_a_cluster() {
    let sandbox = sandbox();
    let _cluster = LocalCluster::start(&sandbox, 1, 1, 2);
    let layout = std::fs::read(sandbox.path(".mainstem-cluster/cluster.json")).unwrap();
    let layout: serde_json::Value = serde_json::from_slice(&layout).unwrap();
    let coordinators = layout["coordinators"][0].as_str().unwrap();
    let sink = "CREATE TABLE o (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');";
    let sql = format!(
        "{sink} SET 'pipeline.name' = 'mine'; SET 'table.dml-sync' = 'true'; INSERT INTO o SELECT id FROM big; SHOW JOBS; SELECT id FROM big ORDER BY id;"
    );
    let output = shell(&sandbox, &["--coordinators", coordinators], &sql);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_says(&text(&output.stderr), &["job 'mine' submitted", "job 'mine' finished"]);
    assert_says(&text(&output.stdout), &[" mine | finished", "  2\n  3\n"]);
    assert_eq!(sandbox.lines("out").len(), 2);
}

/// Types into a terminal: each line when the text before it has come, then the end. The text may stand in what is drawn again
/// of an earlier line, so a line may be typed while a statement still runs: it must not be lost.
const TYPIST: &str = r#"
import os, pty, sys, time, select
steps = eval(sys.stdin.readline())
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen, end = b"", time.time() + 60
def until(text):
    global seen
    while text not in seen:
        if time.time() > end:
            sys.exit("waited in vain for %r in %r" % (text, seen))
        if select.select([fd], [], [], 0.2)[0]:
            try:
                seen += os.read(fd, 65536)
            except OSError:
                sys.exit("it ended before %r: %r" % (text, seen))
for wanted, typed in steps:
    until(wanted)
    seen = b""
    os.write(fd, typed)
try:
    while True:
        seen += os.read(fd, 65536)
except OSError:
    pass
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.stdout.buffer.write(seen)
sys.exit(code)
"#;

#[test]
fn statements_are_typed_over_several_lines_with_completion_and_history() {
    let sandbox = sandbox();
    let mut typist = Command::new("python3");
    typist.args(["-c", TYPIST, env!("CARGO_BIN_EXE_mainstem"), "sql", "-i", "tables.sql", "--history", "history"]);
    typist.current_dir(sandbox.dir.path()).env("TERM", "xterm");
    let mut typist = typist.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A statement over two lines, whose column is completed; a mistake; two statements typed
    // at once, the second a query that Ctrl-C ends.
    let steps = r#"[
        (b"mainstem> ", b"SELECT id\r"), (b"SELECT id", b"FROM orders WHERE custo\t = 'bob';\r"),
        (b" id\r\n----\r\n  2\r\n", b"SELECT nothing FROM orders;\r"), (b"line 1, column 8", b"help\r"),
        (b"help, quit", b"CREATE TABLE g (k BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '100', 'fields.k.min' = '1', 'fields.k.max' = '2');\r"),
        (b"", b"SELECT k, COUNT(*) AS n FROM g GROUP BY k;\r"), (b"2 rows after", b"\x03"),
        (b"stopped: 2 rows", b"SHOW TABLES;\r"), (b" orders | filesystem", b"quit\r")]"#;
    let one_line = steps.replace('\n', " ") + "\n";
    typist.stdin.take().unwrap().write_all(one_line.as_bytes()).unwrap();
    let output = typist.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let history = std::fs::read_to_string(sandbox.path("history")).unwrap();
    assert_says(&history, &["FROM orders WHERE customer = 'bob';", "SHOW TABLES;"]);
}
