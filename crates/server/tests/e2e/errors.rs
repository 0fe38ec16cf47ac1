//! Errors are a feature: each kind gives one clear message that says what, where and what to do, and the process
//! exits with a status that is not zero.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Sandbox, assert_says, text, visible_files};

const TABLE: &str = "CREATE TABLE t (id BIGINT NOT NULL, v INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');\n";

fn with_table(rest: &str) -> Sandbox {
    let sandbox = Sandbox::new(&format!("{TABLE}{rest}"));
    sandbox.write("in/a.json", "{\"id\":1,\"v\":2,\"ts\":\"2026-01-01 00:00:00\"}\n");
    sandbox
}

#[test]
fn wrong_sql_points_to_its_place() {
    let cases: [(&str, &[&str]); 7] = [
        ("SELECT id FORM t;", &["job.sql", "line 3"]),
        ("SELECT idd FROM t;", &["line 3, column 8", "idd", "id"]),
        ("SELECT id FROM\n  tt;", &["line 4, column 3", "tt"]),
        ("SELECT NO_SUCH(id) FROM t;", &["line 3", "NO_SUCH"]),
        ("SELECT id, NTH_VALUE(id, 2 ORDER BY id) FROM t GROUP BY id;", &["line 3", "NTH_VALUE"]),
        ("SELECT a.id FROM t a JOIN t b ON a.id = b.idd;", &["line 3, column 43", "idd"]),
        (
            "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY id MEASURES A.id AS x PATTERN (A) DEFINE A AS TRUE);",
            &["line 3", "MATCH_RECOGNIZE"],
        ),
    ];
    for (sql, parts) in cases {
        let sandbox = with_table(sql);
        for command in ["check", "run", "explain"] {
            assert_says(&sandbox.run_err(&[command, "job.sql"]), parts);
        }
        assert!(!sandbox.path(".mainstem").exists(), "nothing is created for a job that cannot be planned");
    }
}

#[test]
fn a_wrong_option_is_named() {
    let table = |options: &str| format!("CREATE TABLE s (id BIGINT) WITH ({options}); INSERT INTO s SELECT id FROM t;");
    let cases: [(&str, &[&str]); 5] = [
        ("'connector' = 'kafkaa'", &["kafkaa", "filesystem"]),
        ("'path' = 'x'", &["connector"]),
        ("'connector' = 'filesystem', 'format' = 'json'", &["path"]),
        ("'connector' = 'filesystem', 'path' = 'x', 'format' = 'jsonn'", &["jsonn", "json"]),
        (
            "'connector' = 'filesystem', 'path' = 'x', 'format' = 'json', 'sink.rolling-policy.file-sze' = '1mb'",
            &["file-sze"],
        ),
    ];
    for (options, parts) in cases {
        assert_says(&with_table(&table(options)).run_err(&["check", "job.sql"]), parts);
    }
    let promise = "CREATE TABLE p (id BIGINT) WITH ('connector' = 'print', 'delivery' = 'exactly-once'); INSERT INTO p SELECT id FROM t;";
    assert_says(&with_table(promise).run_err(&["check", "job.sql"]), &["exactly-once", "print"]);
}

#[test]
fn missing_files_and_permissions_are_named() {
    let sandbox = with_table("SELECT id FROM t;");
    assert_says(&sandbox.run_err(&["run", "nothing.sql"]), &["nothing.sql", "No such file"]);
    std::fs::remove_dir_all(sandbox.path("in")).unwrap();
    assert_says(&sandbox.run_err(&["run", "job.sql"]), &["in", "path"]);

    let sandbox = with_table(
        "CREATE TABLE s (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'taken', 'format' = 'json'); INSERT INTO s SELECT id FROM t;",
    );
    sandbox.write("taken", "a file where the sink wants a directory");
    assert_says(&sandbox.run_err(&["run", "job.sql"]), &["taken"]);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let sandbox = with_table("SELECT id FROM t;");
    sandbox.write("state", "a file where the state directory should be");
    assert_says(&sandbox.run_err(&["run", "job.sql", "--state-dir", "state"]), &["state"]);
}

#[test]
fn bad_records_are_located() {
    let good = "{\"id\":1,\"v\":2,\"ts\":\"2026-01-01 00:00:00\"}\n";
    let cases: [(&str, &[&str]); 6] = [
        ("{\"id\":1,\"v\":2,\"ts\":\"2026-01-01 00:00:00\"", &["line 3", "a.json"]),
        ("{\"id\":\"abc\",\"v\":2,\"ts\":\"2026-01-01 00:00:00\"}\n", &["line 3", "id", "abc"]),
        ("{\"id\":1,\"v\":99999999999,\"ts\":\"2026-01-01 00:00:00\"}\n", &["line 3", "v"]),
        ("{\"v\":1,\"ts\":\"2026-01-01 00:00:00\"}\n", &["line 3", "id", "NULL"]),
        ("{\"id\":1,\"v\":1,\"ts\":\"yesterday\"}\n", &["line 3", "ts", "yesterday"]),
        ("no json at all\n", &["line 3", "a.json"]),
    ];
    for (bad, parts) in cases {
        let sandbox = with_table("SELECT id, v, ts FROM t;");
        sandbox.write("in/a.json", format!("{good}{good}{bad}"));
        let message = sandbox.run_err(&["run", "job.sql"]);
        assert_says(&message, parts);
        assert_says(&message, &["'bad-records' = 'drop'"]);
    }
}

#[test]
fn bad_records_are_dropped_and_counted_where_the_user_says_so() {
    let sandbox = Sandbox::new(
        &format!("{TABLE}CREATE TABLE s (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json'); INSERT INTO s SELECT id FROM t;")
            .replace("'json');\n", "'json', 'json.ignore-parse-errors' = 'true');\n"),
    );
    sandbox.write(
        "in/a.json",
        "{\"id\":1,\"ts\":\"2026-01-01 00:00:00\"}\nbroken\n{\"id\":2,\"ts\":\"2026-01-01 00:00:00\"}\n",
    );
    let stderr = text(&sandbox.run_ok(&["run", "job.sql"]).stderr);
    assert_says(&stderr, &["2 rows in", "1 dropped"]);
    assert_eq!(sandbox.lines("out").len(), 2);
}

#[test]
fn a_failing_expression_is_located() {
    let sandbox = with_table("SELECT 1 / (v - 2) FROM t;");
    assert_says(&sandbox.run_err(&["run", "job.sql"]), &["ivide by zero"]);
}

const ENDLESS: &str = "
CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1000', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '100000000');
CREATE TABLE s (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
INSERT INTO s SELECT n FROM g;";

/// Waits until the job has published something.
fn wait_for_output(sandbox: &Sandbox) {
    for _ in 0..2000 {
        if !visible_files(&sandbox.path("out")).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no output within 20 s");
}

#[test]
fn a_second_process_on_the_same_job_is_refused() {
    let sandbox = Sandbox::new(ENDLESS);
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms"];
    let mut first = sandbox.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_output(&sandbox);
    let message = sandbox.run_err(&arguments);
    assert_says(&message, &["job", &first.id().to_string()]);
    first.kill().unwrap();
    first.wait().unwrap();
}

fn send_signal(process: u32, signal: &str) {
    let status = std::process::Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn an_interrupt_takes_a_last_checkpoint_and_the_job_goes_on_later() {
    let sandbox = Sandbox::new(ENDLESS);
    for _ in 0..3 {
        // The interval is long: what is published was published by the interrupt.
        // One subtask: the rows of one generator come in order, so that what is there is a prefix of all rows.
        let arguments = ["run", "job.sql", "--checkpoint-interval", "1 h", "--json", "-p", "1"];
        let before = sandbox.lines("out").len();
        let mut process = sandbox.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // The first progress line says that it runs.
        let mut stderr = process.stderr.take().unwrap();
        let mut first = [0; 10];
        stderr.read_exact(&mut first).unwrap();
        send_signal(process.id(), "-INT");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert!(process.wait().unwrap().success(), "{rest}");
        assert_says(&rest, &["\"outcome\":\"stopped\""]);
        assert!(sandbox.lines("out").len() > before);
    }
    // Nothing lost, nothing doubled over the stops.
    let lines = sandbox.lines("out");
    for n in 0..lines.len() {
        assert_eq!(lines.get(&format!("{{\"n\":{n}}}")), Some(&1), "row {n} of {}", lines.len());
    }
}

#[test]
fn a_job_that_has_finished_is_not_run_again() {
    let sandbox = with_table(
        "CREATE TABLE s (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json'); INSERT INTO s SELECT id FROM t;",
    );
    sandbox.run_ok(&["run", "job.sql"]);
    let again = sandbox.run_ok(&["run", "job.sql"]);
    assert_says(&text(&again.stderr), &["has finished before", "--fresh"]);
    assert_eq!(sandbox.lines("out").values().sum::<usize>(), 1);
    sandbox.run_ok(&["run", "job.sql", "--fresh"]);
    assert_eq!(sandbox.lines("out").values().sum::<usize>(), 2, "published files are the user's; they stay");
}

#[test]
fn other_sql_under_the_same_name_is_refused() {
    let sandbox = Sandbox::new(ENDLESS);
    assert!(sandbox.kill_at(&["run", "job.sql", "--checkpoint-interval", "20 ms"], "published", 2));
    sandbox.write("job.sql", ENDLESS.replace("SELECT n", "SELECT n + 1"));
    assert_says(&sandbox.run_err(&["run", "job.sql"]), &["another query", "--fresh", "--job-id"]);
}

/// Damages the newest file with the given ending below a directory; gives its name.
fn damage(sandbox: &Sandbox, ending: &str, how: impl Fn(&mut std::fs::File, u64)) -> String {
    let mut files = visible_files(&sandbox.path(".mainstem"));
    files.retain(|f| f.to_string_lossy().ends_with(ending));
    files.sort_by_key(|f| f.metadata().unwrap().modified().unwrap());
    let newest = files.last().unwrap_or_else(|| panic!("no {ending} file"));
    let mut permissions = newest.metadata().unwrap().permissions();
    permissions.set_mode(0o644);
    std::fs::set_permissions(newest, permissions).unwrap();
    let mut file = std::fs::File::options().read(true).write(true).open(newest).unwrap();
    let length = file.metadata().unwrap().len();
    how(&mut file, length);
    newest.file_name().unwrap().to_string_lossy().into_owned()
}

fn flip_a_bit(file: &mut std::fs::File, length: u64) {
    let mut byte = [0];
    file.seek(SeekFrom::Start(length / 2)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(length / 2)).unwrap();
    file.write_all(&byte).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let sql = "
CREATE TABLE g (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '0.001' SECOND) WITH ('connector' = 'datagen', 'rows-per-second' = '20000', 'number-of-rows' = '60000', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '59999');
CREATE TABLE s (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out/rows', 'format' = 'json');
CREATE TABLE c (w TIMESTAMP(3), n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out/counts', 'format' = 'json');
INSERT INTO s SELECT n FROM g;
INSERT INTO c SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE g, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;";
    type Damage = fn(&mut std::fs::File, u64);
    let cases: [(&str, Damage); 4] = [
        (".state", flip_a_bit),
        (".state", |file, length| file.set_len(length / 2).unwrap()),
        (".manifest", flip_a_bit),
        (".manifest", |file, length| file.set_len(length / 2).unwrap()),
    ];
    for (ending, how) in cases {
        let sandbox = Sandbox::new(sql);
        let arguments = ["run", "job.sql", "--checkpoint-interval", "100 ms", "-p", "2"];
        // Published: what is newest now belongs to a complete epoch.
        assert!(sandbox.kill_at(&arguments, "published", 5), "it should still run");
        let name = damage(&sandbox, ending, how);
        let output = sandbox.run_ok(&arguments);
        assert_says(&text(&output.stderr), &[&name]);
        let rows = sandbox.lines("out/rows");
        assert_eq!(rows.len(), 60_000);
        assert!(rows.values().all(|n| *n == 1), "a row was published twice");
        let counts = sandbox.lines("out/counts");
        assert_eq!(counts.values().sum::<usize>(), 3);
        assert!(counts.keys().all(|line| line.contains("\"n\":20000")), "{counts:?}");
    }
}

#[test]
fn a_null_in_the_key_of_a_sink_is_named() {
    let sandbox = with_table(
        "CREATE TABLE s (v INT, n BIGINT, PRIMARY KEY (v) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'upsert-json');
         INSERT INTO s SELECT v, COUNT(*) FROM t GROUP BY v;",
    );
    sandbox.write("in/b.json", "{\"id\":2,\"ts\":\"2026-01-01 00:00:00\"}\n");
    let message = sandbox.run_err(&["run", "job.sql"]);
    assert_says(&message, &["column 'v' is NULL", "PRIMARY KEY", "IS NOT NULL"]);
}

#[test]
fn a_null_event_time_says_what_to_do() {
    let sandbox = with_table("SELECT id FROM t;");
    sandbox.write("in/b.json", "{\"id\":2}\n");
    let message = sandbox.run_err(&["run", "job.sql"]);
    assert_says(&message, &["source t", "the event time is NULL in 1 of 1 rows", "'bad-records' = 'drop'", "COALESCE"]);
}
